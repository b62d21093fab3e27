"""How many questions are worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dns.message
import dns.rcode

from bastide.resolver.answers import MOST_OF_ALL, MOST_OF_ONE, MOST_WHILE_BUSY, Answers
from bastide.resolver.node import Node
from bastide.resolver.upstream import Upstream


class Slow(Upstream):
    """Name servers that answer when they are let to; `asked` says how many questions wait."""

    def __init__(self) -> None:
        super().__init__(("203.0.113.1",), IPv4Network("10.201.0.0/16"))
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def ask(self, query: dns.message.Message, port: int = 53) -> dns.message.Message:
        self.asked.release()
        await self.go.wait()
        return dns.message.make_response(query)


class Open(Node):
    """A node that restricts nobody."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self._told = True


async def test_few_workspaces_with_many_questions_leave_room_for_others() -> None:
    """Sixteen that ask slow names as fast as they can take half of all places, not all."""
    upstream = Slow()
    answers = Answers(Open(), upstream)
    tasks: list[asyncio.Task[bytes | None]] = []

    def ask(workspace: int, count: int, name: Callable[[int], str]) -> None:
        for number in range(count):
            wire = dns.message.make_query(name(number), "A").to_wire()
            address = IPv4Address("10.201.0.2") + workspace
            tasks.append(asyncio.create_task(answers.answer(address, wire, tcp=False)))

    for workspace in range(16):
        ask(workspace, 2 * MOST_OF_ONE, partial("n{1}.w{0}.example".format, workspace))
    taken = MOST_OF_ALL // 2
    try:
        async with asyncio.timeout(60):
            for _ in range(taken):
                await upstream.asked.acquire()
            greedy = len(tasks)
            ask(99, MOST_WHILE_BUSY + 1, lambda number: f"n{number}.other.example")
            for _ in range(MOST_WHILE_BUSY):
                await upstream.asked.acquire()
            upstream.go.set()
            told = await asyncio.gather(*tasks)
    finally:
        upstream.go.set()
    assert sum(answer is not None for answer in told[:greedy]) <= taken + 8 * MOST_WHILE_BUSY
    others = told[greedy:]
    assert sum(answer is not None for answer in others) == MOST_WHILE_BUSY
    first = others[0]
    assert first is not None
    assert dns.message.from_wire(first).rcode() == dns.rcode.NOERROR
