"""Sockets between the node and an emulator, and how fast a guest may speak."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from bastide.node.errors import BootFailed
from bastide.node.machines.microvm import channel
from bastide.node.machines.microvm.channel import Channel, connected, listening
from bastide.node.machines.microvm.port import BootPort


def pair() -> tuple[socket.socket, socket.socket]:
    """The node's end and the emulator's."""
    near, far = socket.socketpair()
    near.setblocking(False)
    return near, far


def test_only_root_connects_however_long_the_path(tmp_path: Path) -> None:
    """A directory whose name no address could hold serves as well; a stale socket is replaced."""
    place = tmp_path / ("d" * 120)
    place.mkdir()
    listening(place, "qmp.sock").close()
    with listening(place, "qmp.sock") as server:
        assert (place / "qmp.sock").stat().st_mode & 0o777 == 0o600
        for _ in range(2):  # a node that comes back connects again
            with connected(place, "qmp.sock") as here:
                there, _ = server.accept()
                here.send(b"word")
                assert there.recv(4) == b"word"
                there.close()
    with pytest.raises(OSError, match="refused"):
        connected(place, "qmp.sock")


async def test_a_flood_is_read_no_faster_than_bounded() -> None:
    """What a guest prints beyond that has to wait on its side."""
    near, far = pair()
    far.setblocking(False)
    taken: list[int] = []
    began = time.monotonic()
    reading = Channel(near, lambda data: taken.append(len(data)))
    try:
        loop = asyncio.get_running_loop()
        flood = asyncio.create_task(loop.sock_sendall(far, b"x" * 2**21))
        await asyncio.wait({flood}, timeout=0.5)
        passed = time.monotonic() - began
        bound = channel._AT_ONCE + passed * channel._PER_SECOND + channel._PIECE
        assert 0 < sum(taken) <= bound
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
    finally:
        await reading.close()
        far.close()


async def test_what_was_said_last_is_heard() -> None:
    """Words under way when the emulator ends are read; then it is over, and nobody is asked."""
    near, far = pair()
    heard: list[bytes] = []
    port = BootPort(near, heard.append)
    far.sendall(b"cannot go on\nBASTIDE EXIT 3 0")
    far.close()
    await port.last_words()
    assert port.said.exit is not None
    assert port.said.exit.code == 3
    assert b"".join(heard) == b"cannot go on\n"
    with pytest.raises(BootFailed, match="ended before it was ready: cannot go on"):
        await port.until(lambda said: said.ready)
    assert not await port.ask_to_stop()
    await port.close()
