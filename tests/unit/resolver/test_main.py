"""The resolver's process: when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bastide.resolver.__main__ import run
from bastide.resolver.node import Node
from bastide.settings import Settings

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Where it is asked."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setblocking(False)
    with udp, socket.create_server(("127.0.0.1", 0)) as tcp:
        tcp.setblocking(False)
        yield udp, tcp


async def test_it_ends_with_its_connection_to_the_node(
    sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that could grant nothing any more fails, so that it is started again."""

    async def broken(self: Node) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Node, "run", broken)
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="unforeseen"):
            await run(Settings(run_dir=tmp_path), *sockets)


async def test_it_ends_when_it_is_told_to(
    sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM is an ordinary end."""

    async def ending(self: Node) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(Node, "run", ending)
    async with asyncio.timeout(30):
        await run(Settings(run_dir=tmp_path), *sockets)
