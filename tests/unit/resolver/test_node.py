"""The resolver's connection to the node."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from bastide.domain.resolving import FromNode, Restrictions
from bastide.resolver.node import Node


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "resolver.sock"


async def test_a_node_that_goes_while_it_is_answered_is_connected_to_again(path: Path) -> None:
    """What cannot be told the node ends that connection, not the resolver's interest in it."""
    line = FromNode(restrictions=Restrictions(number=1, whole=True))
    connections: asyncio.Queue[None] = asyncio.Queue()
    served: list[asyncio.Task[None] | None] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        connections.put_nowait(None)
        writer.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    class Cut(Node):
        """Finds its connection closing in the moment it has something to say."""

        def _write(self, line: object) -> None:
            if self._writer is not None:
                self._writer.close()
            super()._write(line)  # type: ignore[arg-type]  # only passed on

    server = await asyncio.start_unix_server(connected, path)
    running = asyncio.create_task(Cut(path).run())
    try:
        async with asyncio.timeout(30):
            await connections.get()
            await connections.get()
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await asyncio.gather(*filter(None, served))
        server.close()
