"""What the agent has done when it says that it rests: its machine may be frozen the moment after.

The servers run in this process, so nothing happens between the answer and the look.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from tests.connections import over

from bastide_agent.boot import Boot
from bastide_agent.checkpoint import Checkpoint
from bastide_agent.http.message import Request, Response
from bastide_agent.http.router import Router
from bastide_agent.http.server import Server
from bastide_agent.runtime import Runtime
from bastide_agent.ssh.switch import SshSwitch

TOKEN = "ab" * 32
BODY = json.dumps({"ending": True})
REST = (
    f"POST /control/rest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n{BODY}"
)


@dataclass
class Served:
    """As much of a runtime as rests: its server, and nothing that would have to let go."""

    server: Server = field(default_factory=lambda: Server(Router(), TOKEN))

    def rest(self) -> None:
        """Nothing to let go of."""

    def wake(self) -> None:
        """Nothing to take up."""


class Ground:
    """A runtime server and a control server, with a look at kept connections after `rest`."""

    def __init__(self) -> None:
        self.runtime = Served()
        self.control = Server(Router(), TOKEN)
        self.kept: list[socket.socket] = []
        self.ended: list[bool] = []
        self._checkpoint = Checkpoint(
            cast("Boot", None), cast("Runtime", self.runtime), cast("SshSwitch", None), Router()
        )
        self._checkpoint.control = self.control
        self.control.router.add("POST", "/control/rest", self.rest)

    async def rest(self, request: Request) -> Response:
        """The agent's own answer, and whether others had been told before it was given."""
        answer = await self._checkpoint.rest(request)
        self.ended = [over(connection) for connection in self.kept]
        return answer


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    """Both servers on free ports."""
    found = Ground()
    for server in (found.runtime.server, found.control):
        await server.start("127.0.0.1", 0)
    yield found
    for connection in found.kept:
        connection.close()
    found.runtime.server.stop()
    found.control.stop()


async def test_whoever_is_connected_has_been_told_before_the_answer(ground: Ground) -> None:
    """The gateway would use one again that was still open when the machine stood still."""
    for server in (ground.runtime.server, ground.control):
        connection = socket.create_connection(("127.0.0.1", server.port))
        ground.kept.append(connection)
    reader, writer = await asyncio.open_connection("127.0.0.1", ground.control.port)
    writer.write(REST.encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert ground.ended == [True, True]
