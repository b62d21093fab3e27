"""The protocol with an emulator that may have been taken over by its guest."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bastide.node.machines.microvm.qmp import MOST_LINE, Qmp, QmpError

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class Far:
    """The emulator's end: answers each command as `answers` says, with what it was asked."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.heard: list[dict[str, Any]] = []
        self.files: list[int] = []
        self.answers: dict[str, bytes] = {}
        self._ready = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, GREETING)
        while line := await self._line():
            command = json.loads(line)
            self.heard.append(command)
            answer = self.answers.get(command["execute"], b'{"return": {}}\r\n')
            if not answer:
                return
            await loop.sock_sendall(self.socket, answer)

    async def _line(self) -> bytes:
        readable: asyncio.Event = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.socket, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self.socket)
        room = socket.CMSG_SPACE(16)
        data, ancillary, _, _ = self.socket.recvmsg(65536, room)
        for _, kind, rights in ancillary:
            if kind == socket.SCM_RIGHTS:
                self.files += array.array("i", rights).tolist()
        return data

    async def close(self) -> None:
        self._ready.cancel()
        await asyncio.gather(self._ready, return_exceptions=True)
        self.socket.close()
        for each in self.files:
            os.close(each)


@pytest.fixture
async def far() -> AsyncIterator[Callable[[], tuple[Far, socket.socket]]]:
    """Makes pairs of an emulator's end and the node's."""
    made: list[Far] = []

    def pair() -> tuple[Far, socket.socket]:
        near, there = socket.socketpair()
        near.setblocking(False)
        made.append(Far(there))
        return made[-1], near

    yield pair
    for each in made:
        await each.close()


def unheard(_name: str, _data: dict[str, Any]) -> None:
    """For tests without events."""


async def test_commands_are_answered_in_turn_with_events_between(
    far: Callable[[], tuple[Far, socket.socket]],
) -> None:
    """An event before an answer is told apart; names of arguments become QEMU's own."""
    emulator, near = far()
    event = b'{"event": "STOP", "data": {"reason": "x"}}\r\n'
    emulator.answers["query-status"] = event + b'{"return": {"status": "running"}}\r\n'
    events: list[tuple[str, dict[str, Any]]] = []
    qmp = await Qmp.open(near, lambda name, data: events.append((name, data)))
    try:
        asked = [qmp.run("query-status"), qmp.run("migrate-set-parameters", max_bandwidth=5)]
        first, _ = await asyncio.gather(*asked)
        assert first == {"status": "running"}
        assert events == [("STOP", {"reason": "x"})]
        assert emulator.heard[0]["execute"] == "qmp_capabilities"
        assert emulator.heard[-1]["arguments"] == {"max-bandwidth": 5}
    finally:
        await qmp.close()


async def test_descriptors_go_with_a_command(
    far: Callable[[], tuple[Far, socket.socket]],
) -> None:
    """The emulator gets a file of its own; ours stays open."""
    emulator, near = far()
    reading, writing = os.pipe()
    qmp = await Qmp.open(near, unheard)
    try:
        await qmp.run("getfd", fdname="memory", descriptors=(writing,))
        os.write(writing, b"mine")
        os.write(emulator.files[0], b" and theirs")
        assert os.read(reading, 64) == b"mine and theirs"
    finally:
        os.close(reading)
        os.close(writing)
        await qmp.close()


async def test_refusals_are_told(far: Callable[[], tuple[Far, socket.socket]]) -> None:
    """QEMU's own words are in the error, and the next command works."""
    emulator, near = far()
    emulator.answers["migrate"] = b'{"error": {"class": "GenericError", "desc": "no room"}}\r\n'
    qmp = await Qmp.open(near, unheard)
    try:
        with pytest.raises(QmpError, match="refuses migrate: no room"):
            await qmp.run("migrate", uri="fd:x")
        assert await qmp.run("cont") == {}
    finally:
        await qmp.close()


@pytest.mark.parametrize(
    "said", [b"", b"x" * (MOST_LINE + 65536)], ids=["nothing", "a line without end"]
)
async def test_an_emulator_that_does_not_answer_is_given_up(
    far: Callable[[], tuple[Far, socket.socket]], said: bytes
) -> None:
    """Silence ends at the deadline, a flood at the bound; later commands fail at once."""
    emulator, near = far()
    emulator.answers["cont"] = said
    qmp = await Qmp.open(near, unheard)
    try:
        with pytest.raises(QmpError):
            await qmp.run("cont", seconds=5 if said else 0.2)
        with pytest.raises(QmpError, match="gone"):
            await qmp.run("stop")
    finally:
        await qmp.close()


async def test_nobody_there() -> None:
    """A connection that ends without a greeting is an error, not a wait."""
    near, there = socket.socketpair()
    near.setblocking(False)
    there.close()
    with pytest.raises(QmpError, match="gone"):
        await Qmp.open(near, unheard)
