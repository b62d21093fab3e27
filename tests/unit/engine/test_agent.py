"""The link to agents does not trust what answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bastide.domain.machine import ControlAddress
from bastide.engine import agent as link
from bastide.engine.agent import AgentRefused, AgentUnavailable, HttpAgent

TOKEN = "ab" * 16


@asynccontextmanager
async def workspace(*parts: bytes, endless: bool = False) -> AsyncIterator[ControlAddress]:
    """Something inside a workspace that answers with these bytes, the last one for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            while endless:
                writer.write(parts[-1])
                await writer.drain()
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield ControlAddress(address="127.0.0.1", port=port, token=TOKEN)


def ok(body: bytes) -> bytes:
    """An ordinary answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body


async def test_an_agent_is_understood() -> None:
    """Health and runtime answers are read."""
    client = HttpAgent()
    async with workspace(ok(b'{"status": "ok", "boot_id": "b1", "uptime": 2.5}')) as control:
        assert (await client.health(control)).boot_id == "b1"
    async with workspace(ok(b'{"enabled": true, "running": true, "port": 9990}')) as control:
        told = await client.set_runtime(control, enabled=True, token=TOKEN)
        assert (told.enabled, told.running) == (True, True)
    await client.close()


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"nonsense",
        ok(b""),
        ok(b"[]"),
        ok(b'{"boot_id": 5}'),
        ok(b"x" * (link.MAX_ANSWER_BYTES + 1)),
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_strange_answers_are_refused(part: bytes) -> None:
    """Whatever is not the documented answer is an error, and no redirect is followed."""
    client = HttpAgent()
    async with workspace(part) as control:
        with pytest.raises(AgentUnavailable):
            await client.health(control)
    await client.close()


async def test_an_endless_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a flood nor a trickle of bytes holds the control plane."""
    monkeypatch.setattr(link, "TIMEOUT", 0.3)
    client = HttpAgent()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for chunk in (b"1000\r\n" + b"x" * 0x1000 + b"\r\n", b"1\r\nx\r\n"):
        async with workspace(head, chunk, endless=True) as control:
            with pytest.raises(AgentUnavailable):
                await client.health(control)
    await client.close()


async def tar(client: HttpAgent, control: ControlAddress) -> bytes:
    """An archive of everything."""
    async with client.archive(control, ["/"], []) as parts:
        return b"".join([part async for part in parts])


async def content() -> AsyncIterator[bytes]:
    """A body to unpack."""
    yield b"tar"


async def test_a_whole_archive_is_told_from_a_cut_one() -> None:
    """A stream that ends before its end mark is no archive."""
    client = HttpAgent()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with workspace(head, b"3\r\ntar\r\n", b"0\r\n\r\n") as control:
        assert await tar(client, control) == b"tar"
    for rest in ((b"3\r\ntar\r\n",), (b"3\r\nta",), (b"zz\r\n",), ()):
        async with workspace(head, *rest) as control:
            with pytest.raises(AgentUnavailable, match="broke off"):
                await tar(client, control)
    await client.close()


def refusal(status: int, message: str, **more: object) -> bytes:
    """An agent's answer that it will not."""
    body = json.dumps({"success": False, "message": message, **more}).encode()
    head = b"HTTP/1.1 %d No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(body)) + body


async def test_a_refusal_is_told_and_bounded() -> None:
    """Its words reach the owner: short, on one line, without control characters."""
    client = HttpAgent()
    async with workspace(refusal(404, "there is nothing at '/x'\x1b[31m\n" * 999)) as control:
        with pytest.raises(AgentRefused) as told:
            await tar(client, control)
    assert told.value.status == 404
    assert told.value.message.isprintable()
    assert len(told.value.message) <= 500
    async with workspace(refusal(507, "the disk is full")) as control:
        with pytest.raises(AgentRefused, match="full"):
            await client.unpack(control, "/", content())
    wrong = refusal(400, "no directory", details={"field": "dest", "more": [1]})
    async with workspace(wrong) as control:
        with pytest.raises(AgentRefused) as told:
            await client.unpack(control, "/x", content())
    assert (told.value.status, told.value.field) == (400, "dest")
    async with workspace(refusal(404, "there is nothing at '/control/archive'")) as control:
        with pytest.raises(AgentUnavailable, match="older than this server"):
            await tar(client, control)
    for strange in (
        b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno",
        refusal(400, "no", details="text"),
        refusal(400, "no", details={"field": 5}),
        ok(b"{}"),
        ok(b'{"files_extracted": -1}'),
    ):
        async with workspace(strange) as control:
            with pytest.raises(AgentUnavailable, match="strange"):
                await client.unpack(control, "/", content())
    async with workspace(ok(b'{"files_extracted": 3}')) as control:
        assert await client.unpack(control, "/", content()) == 3
    await client.close()


async def test_nobody_there_is_unavailable() -> None:
    """A closed port is an error that says what to do."""
    async with workspace(b"") as control:
        pass
    client = HttpAgent()
    with pytest.raises(AgentUnavailable, match="restart"):
        await client.health(control)
    await client.close()
