"""One connection at the bastion: what is taken back is not used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest
from tests.unit.bastion.test_doors import KEY, ONE, SUBNET

from bastide.bastion import server
from bastide.bastion.doors import Doors, Porter
from bastide.bastion.server import Bastion, Guest, Passage
from bastide.domain.machine import SSH_PORT


class Forward(asyncssh.SSHForwarder):
    """A connection to a workspace."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def porter(tmp_path: Path) -> Porter:
    made = Porter(tmp_path / "workspaces.json", KEY)
    await made.sync([ONE])
    return made


@pytest.fixture
def guest(porter: Porter, tmp_path: Path) -> Guest:
    """One who has proven the key of `ONE`."""
    doors = Doors(tmp_path / "workspaces.json", SUBNET)
    found = Guest(Bastion(doors))
    found._proven = lambda: doors.opened_by_key("SHA256:one")
    return found


async def test_access_taken_back_while_connecting_opens_nothing(
    guest: Guest, porter: Porter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A door that closes between the decision and the connection stays closed."""
    forward = Forward()

    async def connect(address: str) -> asyncssh.SSHForwarder:
        assert address == str(ONE.address)
        await porter.withdraw(ONE.workspace)
        return forward

    monkeypatch.setattr(server, "connect", connect)
    with pytest.raises(asyncssh.ChannelOpenError, match="taken back"):
        await guest.connection_requested("abc234", SSH_PORT, "", 0)
    assert forward.closed


async def test_a_change_another_question_saw_first_still_closes(
    guest: Guest, porter: Porter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the new file first, what is open and no longer allowed is closed."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.001)
    bastion, far = guest._bastion, Forward()
    bastion.guests.add(guest)
    watching = asyncio.create_task(bastion.watch())
    closed = asyncio.Event()

    def ended(passage: Passage, nothing: None) -> None:
        guest._passages.pop(passage, nothing)
        closed.set()

    guest._passages[Passage(far, ended)] = "abc234"
    try:
        await porter.withdraw(ONE.workspace)
        assert bastion.doors.find("abc234") is None
        await asyncio.wait_for(closed.wait(), 10)
        assert guest._passages == {}
    finally:
        watching.cancel()


@pytest.mark.parametrize(
    ("host", "port"),
    [("abc234", 23), ("abc234", 9989), ("10.201.0.2", 22), ("xyz789", 22), ("localhost", 22)],
)
def test_nothing_else_is_forwarded(guest: Guest, host: str, port: int) -> None:
    """Only the SSH port of a workspace, by its name."""
    with pytest.raises(asyncssh.ChannelOpenError, match="forwards only"):
        guest.connection_requested(host, port, "", 0)
