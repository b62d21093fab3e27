"""One connection at the bastion: what is taken back is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
from tests.unit.bastion.test_doors import KEY, SUBNET, door

from bastide.bastion.doors import Doors, Porter
from bastide.bastion.server import Bastion, Guest
from bastide.domain.machine import SSH_PORT


class Forward:
    """A connection to a workspace."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def was_eof_received(self) -> bool:
        return False


class Connection:
    """A client's connection whose access is taken back while it is forwarded."""

    def __init__(self, porter: Porter) -> None:
        self.forward = Forward()
        self._porter = porter

    async def forward_connection(self, host: str, port: int) -> Forward:
        await self._porter.withdraw(door(2).workspace)
        return self.forward


async def test_access_taken_back_while_connecting_opens_nothing(tmp_path: Path) -> None:
    """A door that closes between the decision and the connection stays closed."""
    path = tmp_path / "workspaces.json"
    porter = Porter(path, KEY)
    await porter.sync([door(2)])
    doors = Doors(path, SUBNET)
    guest = Guest(Bastion(doors))
    connection = Connection(porter)
    guest._conn = cast("Any", connection)
    guest._proven = lambda: doors.opened_by_key("SHA256:2")
    with pytest.raises(asyncssh.ChannelOpenError, match="taken back"):
        await guest.connection_requested("abcde2", SSH_PORT, "", 0)
    assert connection.forward.closed
