"""The resolver's counter: who gets which answer, and what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from bastide.domain.resolving import Ask, FromNode, FromResolver, Grant, Told
from bastide.node.network.desk import Desk
from bastide.node.network.firewall import Firewall
from bastide.node.network.permits import Granted

WORKSPACE, ADDRESS = IPv4Address("10.201.0.2"), IPv4Address("203.0.113.2")
Wanted = tuple[IPv4Address, str, tuple[IPv4Address, ...], int]


class Kernel:
    """A firewall that lets in what it is asked to, when `go` is set; `called` says it was asked."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.go = asyncio.Event()
        self.failing = False

    async def permit(self, wanted: Iterable[Wanted]) -> list[Granted]:
        self.called.set()
        await self.go.wait()
        if self.failing:
            self.failing = False
            raise RuntimeError("unforeseen")
        return [Granted(addresses) for _, _, addresses, _ in wanted]


class Resolver:
    """The far end of a connection to the desk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def ask(self, number: int, name: str) -> None:
        ask = Ask(number=number, workspace=WORKSPACE, name=name, addresses=(ADDRESS,), ttl=60)
        self.writer.write(FromResolver(ask=ask).model_dump_json().encode() + b"\n")

    async def hear(self) -> FromNode:
        async with asyncio.timeout(30):
            return FromNode.model_validate_json(await self._reader.readline())


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def noted() -> list[Told]:
    return []


@pytest.fixture
async def desk(kernel: Kernel, noted: list[Told], tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk that grants, without its socket, which needs root."""
    made = Desk(tmp_path / "unused", "unused", cast("Firewall", kernel), noted.append)
    made._granting = asyncio.create_task(made._grant())
    yield made
    kernel.go.set()
    await made.close()


@pytest.fixture
async def path(desk: Desk, tmp_path: Path) -> AsyncIterator[Path]:
    server = await asyncio.start_unix_server(desk._connected, tmp_path / "desk.sock")
    yield tmp_path / "desk.sock"
    server.close()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Resolver]:
    """A resolver that has heard the rules."""
    resolver = Resolver(*await asyncio.open_unix_connection(path))
    assert (await resolver.hear()).restrictions is not None
    yield resolver
    resolver.writer.close()


async def test_what_an_earlier_connection_asked_is_not_answered_to_a_new_one(
    path: Path, kernel: Kernel, noted: list[Told], desk: Desk
) -> None:
    """Neither what the firewall was busy with nor what waited: the numbers are of another."""
    async with connected(path) as first:
        first.ask(1, "busy.example")
        async with asyncio.timeout(30):
            await kernel.called.wait()
            first.ask(2, "waiting.example")
            while desk._asked.empty():  # noqa: ASYNC110 - the desk tells nobody
                await asyncio.sleep(0.01)
        async with connected(path) as second:
            second.ask(1, "new.example")
            kernel.go.set()
            assert (await second.hear()).grant == Grant(number=1, addresses=(ADDRESS,))
            assert [told.name for told in noted] == ["new.example"]
            second.ask(2, "newer.example")
            assert (await second.hear()).grant == Grant(number=2, addresses=(ADDRESS,))


async def test_an_unforeseen_failure_does_not_end_the_granting(path: Path, kernel: Kernel) -> None:
    """What fails is not granted, and the next question is answered again."""
    kernel.failing = True
    kernel.go.set()
    async with connected(path) as resolver:
        resolver.ask(1, "unlucky.example")
        async with asyncio.timeout(30):
            while kernel.failing:  # noqa: ASYNC110 - nor does the kernel
                await asyncio.sleep(0.01)
        resolver.ask(2, "lucky.example")
        assert (await resolver.hear()).grant == Grant(number=2, addresses=(ADDRESS,))
