"""Who probes names, or guesses in many connections, is noticed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import asyncssh
from tests.unit.bastion.test_doors import KEY, ONE, SUBNET

from bastide.bastion.doors import Doors, Porter
from bastide.bastion.server import REFUSALS, Bastion, Guest
from bastide.bastion.wariness import PATIENCE, UNAIMED
from bastide.domain.machine import SSH_PORT

HERE = "203.0.113.7"


class Connection:
    """A connection that remembers whether it was ended."""

    ended = False

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "peername"
        return HERE, 1234

    def disconnect(self, code: int, reason: str) -> None:
        assert (code, bool(reason)) == (asyncssh.DISC_BY_APPLICATION, True)
        self.ended = True


def come(bastion: Bastion) -> tuple[Guest, Connection]:
    """One more connection from here."""
    guest, connection = Guest(bastion), Connection()
    guest.connection_made(cast("asyncssh.SSHServerConnection", connection))
    return guest, connection


async def test_probing_names_ends_and_counts(tmp_path: Path) -> None:
    """Asking for workspaces the key does not open ends the connection and silences the source."""
    await Porter(tmp_path / "doors.json", KEY).sync([ONE])
    bastion = Bastion(Doors(tmp_path / "doors.json", SUBNET))
    guest, connection = come(bastion)
    for _ in range(REFUSALS):
        assert not connection.ended
        try:
            guest.connection_requested("xyz789", SSH_PORT, "", 0)
        except asyncssh.ChannelOpenError:
            continue
    assert connection.ended
    assert not bastion.wariness.listens(HERE)


async def test_guesses_in_many_connections_are_one_sources(tmp_path: Path) -> None:
    """Passwords said at the same moment are not all looked at."""
    await Porter(tmp_path / "doors.json", KEY).sync([ONE])
    bastion = Bastion(Doors(tmp_path / "doors.json", SUBNET))
    for _ in range(PATIENCE - 1):
        bastion.wariness.failed(HERE, "abc234")
    first, second = come(bastion)[0], come(bastion)[0]
    answers = await asyncio.wait_for(
        asyncio.gather(*(each.validate_password("root", "guess") for each in (first, second))), 60
    )
    assert answers == [False, False]
    assert bastion.wariness._sources.count(HERE) <= PATIENCE - 1 + UNAIMED
    assert not second.password_auth_supported()
