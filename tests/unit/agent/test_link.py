"""The connection's turns and time limits, with a socket that does as it is told."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from bastide_agent.http.connection import WRITE_HIGH
from bastide_agent.ws.link import Link

DEADLINE = 10.0


class Socket:
    """A WebSocket whose client takes what and when the test says."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.pending = 0
        self.received = 0
        self.pings = 0
        self.cut = asyncio.Event()
        self.taken = asyncio.Event()
        self.more = asyncio.Event()

    def post(self, message: str | bytes) -> None:
        self.sent.append(message)
        self.pending += len(message)
        self.more.set()

    async def drain(self) -> None:
        while self.pending > WRITE_HIGH // 4:
            self.taken.clear()
            await self.taken.wait()

    def take(self, count: int) -> None:
        """The client takes some bytes."""
        self.pending -= count
        self.taken.set()

    def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.cut.set()

    async def receive(self) -> None:
        await self.cut.wait()


class Source:
    """Frames of one letter."""

    def __init__(self, letter: str, count: int, size: int) -> None:
        self.frames = [letter.encode() * size] * count

    def attach(self) -> None:
        """Nothing to do."""

    def detach(self) -> None:
        """Nothing to do."""

    def next_frame(self) -> bytes | None:
        return self.frames.pop() if self.frames else None


def make(socket: Socket, sources: list[Source], **times: float) -> Link:
    """A link between a socket and sources."""

    class Live:
        """Just the sources."""

        def sources(self) -> list[Source]:
            return sources

    return Link(cast("Any", socket), cast("Any", Live()), **times)


async def test_turns_are_fair() -> None:
    """A source with much to say does not keep one with little waiting."""
    socket = Socket()
    make(socket, [Source("n", 100, 1000), Source("q", 1, 5)]).pump()
    assert socket.sent[:3] == [b"n" * 1000, b"q" * 5, b"n" * 1000]
    assert len(socket.sent) == 101


async def test_a_slow_client_gets_no_more_than_it_takes() -> None:
    """Above the high-water mark nothing is pulled; it goes on, in turn, once the client took it."""
    socket = Socket()
    sources = [Source(letter, 100, 32 * 1024) for letter in "ab"]
    link = make(socket, sources)
    link.pump()
    link.pump()
    first = len(socket.sent)
    assert socket.pending <= WRITE_HIGH + 32 * 1024
    socket.more.clear()
    socket.take(socket.pending)
    async with asyncio.timeout(DEADLINE):
        await socket.more.wait()
    assert socket.sent[first][:1] != socket.sent[first - 1][:1]
    assert socket.pending <= WRITE_HIGH + 32 * 1024


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    """After the stall time without a byte taken the connection is cut."""
    socket = Socket()
    make(socket, [Source("a", 100, 32 * 1024)], stall=0.01).pump()
    async with asyncio.timeout(DEADLINE):
        await socket.cut.wait()


async def test_a_client_that_takes_a_little_is_kept() -> None:
    """A client slower than the stall time, but not still, keeps its connection."""
    socket = Socket()
    link = make(socket, [Source("a", 5, 32 * 1024)], stall=0.05)
    link.pump()
    async with asyncio.timeout(DEADLINE):
        while socket.pending > WRITE_HIGH // 4:
            await asyncio.sleep(0.005)
            socket.take(1000)
    assert not socket.cut.is_set()


async def test_a_silent_client_is_cut_off_and_a_talking_one_is_not() -> None:
    """Two pings without a sign of life end the connection; any byte received is one."""
    socket = Socket()
    link = make(socket, [], ping=0.01)
    running = asyncio.ensure_future(link.run())
    async with asyncio.timeout(DEADLINE):
        while socket.pings < 10:
            socket.received += 1
            await asyncio.sleep(0)
        assert not socket.cut.is_set()
        await running
    assert socket.pings >= 10


async def test_nothing_is_sent_after_a_takeover() -> None:
    """A link that was taken over pulls no more frames."""
    socket = Socket()
    closed: list[tuple[int, str]] = []
    socket.close = lambda code, reason: closed.append((code, reason))  # type: ignore[attr-defined]
    source = Source("a", 1, 1)
    link = make(socket, [source])
    link.take_over()
    link.pump()
    assert closed == [(4001, "taken over")]
    assert socket.sent == []
    assert len(source.frames) == 1
