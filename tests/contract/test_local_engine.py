"""The local engine keeps the Engine contract over a real unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.engine import EngineContract
from tests.fakes.engine import FakeEngine
from tests.fakes.node import fake_node

from bastide.domain.machine import MachineSpec, RegistryAuth, Resources
from bastide.engine.contract import (
    Engine,
    EngineError,
    EngineUnavailable,
    UnknownMachine,
    Unsupported,
)
from bastide.engine.local import LocalEngine

SPEC = MachineSpec(
    id="ws_00000001",
    image="debian-12",
    resources=Resources(cpus=1, memory_mb=128, disk_mb=64),
)


class TestLocalEngine(EngineContract):
    """Against a node that is a fake behind a real socket."""

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Engine]:
        """A client of a running node."""
        socket = tmp_path / "node.sock"
        async with fake_node(socket, FakeEngine(can_snapshot=True)):
            local = LocalEngine(socket)
            yield local
            await local.close()

    @pytest.fixture
    def spec(self) -> MachineSpec:
        """A small machine."""
        return SPEC


async def test_a_missing_node_is_unavailable(tmp_path: Path) -> None:
    """Without a node every call says so, events too, and the message names the socket."""
    local = LocalEngine(tmp_path / "node.sock")
    for call in (local.poll(), local.start(SPEC), local.delete(SPEC.id)):
        with pytest.raises(EngineUnavailable, match=r"node\.sock"):
            await call
    with pytest.raises(EngineUnavailable):
        async for _ in local.events():
            pass
    await local.close()


async def test_refusals_keep_their_type_and_words(tmp_path: Path) -> None:
    """A refusal of the node arrives with its code and message."""
    engine = FakeEngine(can_pause=False)
    engine.fail["start"] = 1
    async with fake_node(tmp_path / "node.sock", engine):
        local = LocalEngine(tmp_path / "node.sock")
        await local.create(SPEC)
        with pytest.raises(EngineError, match="fails at start") as refused:
            await local.start(SPEC)
        assert refused.value.code == "boot_failed"
        with pytest.raises(Unsupported):
            await local.pause(SPEC.id)
        with pytest.raises(UnknownMachine):
            await local.status("ws_0000000f")
        await local.close()


async def test_events_end_with_the_node(tmp_path: Path) -> None:
    """The stream of events ends when the node goes away, and can be opened again."""
    engine, socket = FakeEngine(can_snapshot=True), tmp_path / "node.sock"
    local = LocalEngine(socket)

    async def listen() -> None:
        async for _ in local.events():
            pass

    async with fake_node(socket, engine):
        listening = asyncio.create_task(listen())
        async with asyncio.timeout(10):
            while not engine.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await listening
    async with fake_node(socket, engine):
        assert await local.poll() == []
    await local.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b'{"machines": 5}'])
async def test_a_strange_answer_is_an_error(tmp_path: Path, body: bytes) -> None:
    """Whatever a node of another version answers, it is an EngineError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "node.sock")
    async with server:
        local = LocalEngine(tmp_path / "node.sock")
        with pytest.raises(EngineError, match="same version"):
            await local.poll()
        await local.close()


async def test_progress_and_failures_of_an_image_arrive(tmp_path: Path) -> None:
    """Each line is told; the code of a failure is the node's; credentials go along."""
    socket, fake, told = tmp_path / "node.sock", FakeEngine(), list[str]()
    fake.pull_failures["a.example/b:1"] = "image_denied"
    auth = RegistryAuth(username="me", password="secret")
    async with fake_node(socket, fake):
        local = LocalEngine(socket)
        assert (await local.pull("a.example/c:1", auth, told.append)).ready
        assert told == ["fetching: 1.0 of 2.0 MiB"]
        with pytest.raises(EngineError) as refused:
            await local.pull("a.example/b:1", None, told.append)
        assert refused.value.code == "image_denied"
        fake.pull_failures["a.example/b:1"] = "interrupted"
        with pytest.raises(EngineUnavailable):  # it is asked again
            await local.pull("a.example/b:1", None, told.append)
        assert fake.pulled[:2] == [("a.example/c:1", auth), ("a.example/b:1", None)]
        await local.close()
