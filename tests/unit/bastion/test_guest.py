"""One connection at the bastion: what is taken back is not used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest
from tests.unit.bastion.test_doors import KEY, ONE, SUBNET

from bastide.bastion import server
from bastide.bastion.doors import Doors, Porter
from bastide.bastion.passage import Far, Passage
from bastide.bastion.server import Bastion, Guest
from bastide.domain.machine import SSH_PORT


class Forward(Far):
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
    found._bastion.guests.add(found)
    found._proven = lambda: doors.opened_by_key("SHA256:one")
    return found


async def test_access_taken_back_while_connecting_opens_nothing(
    guest: Guest, porter: Porter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A door that closes between the decision and the connection stays closed."""
    forward = Forward()

    async def connect(address: str) -> Far:
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


class Channel(asyncio.Transport):
    """A client's channel that remembers what came through."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.ended = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += bytes(data)

    def write_eof(self) -> None:
        self.ended.set()

    def close(self) -> None:
        self.ended.set()


@pytest.mark.parametrize("size", [20, 1_000_000])
async def test_an_early_greeting_is_not_lost(size: int) -> None:
    """What the workspace says before the client's channel is there comes first, and whole."""
    greeting = bytes(size)
    over = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.write(b"last")
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        _, far = await loop.create_connection(Far, "127.0.0.1", port)
        async with asyncio.timeout(10):
            while not far._kept:  # noqa: ASYNC110 - nobody is told, that is the point
                await asyncio.sleep(0)
        channel, passages = Channel(), dict[Passage, None]()
        passage = Passage(far, passages.pop)
        passage.connection_made(channel)
        passage.session_started()
        async with asyncio.timeout(10):
            await channel.ended.wait()
        assert channel.said == greeting + b"last"
        passage.close()
        await asyncio.wait_for(over.wait(), 10)
