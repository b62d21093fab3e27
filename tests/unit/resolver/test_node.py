"""The resolver's side of the node's socket, with a node that writes lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bastide.domain.resolving import FromNode, FromResolver, Grant, Restriction, Restrictions
from bastide.resolver.node import MOST_UNREAD, Away, Node

WORKSPACE, ONE = IPv4Address("10.211.0.2"), IPv4Address("203.0.113.1")


class Desk:
    """Says what it is told to say, and answers every question with a grant."""

    def __init__(self) -> None:
        self.heard: list[FromResolver] = []
        self.seconds = 120
        self.writer: asyncio.StreamWriter | None = None
        self.confirmed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with closing(writer):
            await self.listen(reader)

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            said = FromResolver.model_validate_json(line)
            if said.ask is not None:
                self.heard.append(said)
                grant = Grant(
                    number=said.ask.number, addresses=said.ask.addresses, seconds=self.seconds
                )
                self.say(FromNode(grant=grant))
            async with self.confirmed:
                self.confirmed.notify_all()

    def say(self, line: FromNode) -> None:
        assert self.writer is not None
        self.writer.write(line.model_dump_json(exclude_none=True).encode() + b"\n")

    async def restrict(self, restriction: Restriction | None, *, whole: bool = False) -> None:
        """Tell a restriction and wait until it is confirmed."""
        async with self.confirmed:
            told = Restrictions(number=1, whole=whole, workspaces={WORKSPACE: restriction})
            self.say(FromNode(restrictions=told))
            await asyncio.wait_for(self.confirmed.wait(), 60)


@pytest.fixture(name="pair")
async def _pair(tmp_path: Path) -> AsyncIterator[tuple[Desk, Node]]:
    desk, node = Desk(), Node(tmp_path / "socket")
    server = await asyncio.start_unix_server(desk.serve, str(tmp_path / "socket"))
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(60):
        while desk.writer is None:  # noqa: ASYNC110 - the connection has no event of its own
            await asyncio.sleep(0.01)
    yield desk, node
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    server.close()
    if desk.writer is not None:
        desk.writer.close()
        with suppress(ConnectionError):
            await desk.writer.wait_closed()


async def test_nothing_is_known_before_the_node_has_spoken(pair: tuple[Desk, Node]) -> None:
    """Then a workspace may ask for what its restriction says, others for everything."""
    desk, node = pair
    with pytest.raises(Away):
        node.names(WORKSPACE)
    await desk.restrict(Restriction(names=("a.example", "*.b.example")), whole=True)
    names = node.names(WORKSPACE)
    assert names is not None
    assert "x.b.example" in names
    assert node.names(IPv4Address("10.211.0.9")) is None
    await desk.restrict(Restriction())
    assert node.names(WORKSPACE) is None
    assert node.watched(WORKSPACE)
    await desk.restrict(None)
    assert not node.watched(WORKSPACE)


async def test_a_grant_is_asked_for_once_while_it_holds(pair: tuple[Desk, Node]) -> None:
    """Again for other addresses, for longer, and after the policy has changed."""
    desk, node = pair
    await desk.restrict(Restriction(names=("a.example",)), whole=True)
    two = IPv4Address("203.0.113.2")
    assert await node.grant(WORKSPACE, "a.example", [ONE], 60) == (ONE,)
    assert await node.grant(WORKSPACE, "a.example", [ONE], 10) == (ONE,)
    assert len(desk.heard) == 1
    await node.grant(WORKSPACE, "a.example", [ONE, two], 60)
    await node.grant(WORKSPACE, "a.example", [ONE], 300)
    assert len(desk.heard) == 3
    await node.grant(WORKSPACE, "a.example", [ONE], 10)
    await desk.restrict(Restriction(names=("a.example", "b.example")))
    await node.grant(WORKSPACE, "a.example", [ONE], 10)
    assert len(desk.heard) == 4


async def test_a_node_that_goes_away_grants_nothing(pair: tuple[Desk, Node]) -> None:
    """What was told stays in force; a question fails instead of waiting."""
    desk, node = pair
    await desk.restrict(Restriction(names=("a.example",)), whole=True)
    assert desk.writer is not None
    desk.writer.close()
    await asyncio.sleep(0)
    with suppress(Away):
        async with asyncio.timeout(60):
            while True:
                await node.grant(WORKSPACE, "a.example", [ONE], 4000)
    assert node.names(WORKSPACE) is not None


async def test_a_node_that_does_not_read_costs_no_memory(tmp_path: Path) -> None:
    """What was answered is told for the log only as far as the node keeps up."""
    held: list[asyncio.StreamWriter] = []

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_unix_server(never_read, str(tmp_path / "socket"))
    node = Node(tmp_path / "socket")
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(60):
        while node._writer is None or not held:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.01)
    transport = node._writer.transport
    for number in range(20_000):
        node.tell(WORKSPACE, f"{number}.{'a' * 200}.example")
    assert MOST_UNREAD < transport.get_write_buffer_size() < MOST_UNREAD + 1024
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    server.close()
    for one in (transport, *(writer.transport for writer in held)):
        one.abort()
    await asyncio.sleep(0)
