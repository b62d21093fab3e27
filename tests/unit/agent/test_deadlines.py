"""What the agent's HTTP server does with clients that are slow, idle or too many.

The server runs in this process, with its times and bounds shortened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from bastide_agent.http import connection, server
from bastide_agent.http.message import Request, Response, ok
from bastide_agent.http.router import Router
from bastide_agent.http.server import Server

TOKEN = "ab" * 32
HEAD = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n"
SOON = 0.2  # seconds: what the limits are shortened to
DEADLINE = 20.0


class App:
    """What is served: an endless answer, a body that is read, a short answer."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.clients: list[Client] = []
        self.server = Server(Router(), TOKEN)
        self.server.router.add("GET", "/endless", self.endless)
        self.server.router.add("POST", "/body", self.body)
        self.server.router.add("GET", "/short", self.short)

    async def endless(self, request: Request) -> None:
        """Send until the client is gone."""
        stream = await request.start(200, "application/octet-stream")
        try:
            while True:
                await stream.write(bytes(64 * 1024))
        finally:
            self.left.set()

    async def body(self, request: Request) -> Response:
        """Count the bytes of the body."""
        return ok({"size": sum([len(piece) async for piece in request.body])})

    async def short(self, request: Request) -> Response:
        """Say that all is well."""
        del request
        return ok()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """A server on a free port."""
    found = App()
    await found.server.start("127.0.0.1", 0)
    yield found
    found.server.stop()
    for client in found.clients:
        client.writer.close()
        with suppress(ConnectionError):
            await client.writer.wait_closed()


class Client:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, app: App) -> Client:
        """Connect."""
        client = cls(*await asyncio.open_connection("127.0.0.1", app.server.port))
        app.clients.append(client)
        return client

    def send(self, text: str) -> None:
        """Send without waiting."""
        self.writer.write(text.encode())

    async def answer(self) -> tuple[int, Any]:
        """Status and document of the next answer."""
        async with asyncio.timeout(DEADLINE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return int(head[9:12]), json.loads(await self.reader.readexactly(size))

    async def ends(self) -> bool:
        """Wait until the server has ended the connection; False when bytes came instead."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


def shorten(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Shorten the named limits, and let the others be as long as they are."""
    for name in names:
        monkeypatch.setattr(connection, name, SOON)


async def test_a_slow_head_ends_the_connection(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request line that does not come to its end holds nothing for long, nor does silence."""
    shorten(monkeypatch, "HEAD_TIMEOUT")
    drip, silent = await Client.to(app), await Client.to(app)
    drip.send("GET /short HTTP/1.1\r\nHost")
    assert await drip.ends()
    assert await silent.ends()


async def test_a_slow_second_head_ends_the_connection(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for the next request on a kept connection."""
    shorten(monkeypatch, "HEAD_TIMEOUT")
    client = await Client.to(app)
    client.send(f"GET /short HTTP/1.1\r\n{HEAD}\r\n")
    assert (await client.answer())[0] == 200
    client.send("GET /short")
    assert await client.ends()


async def test_idle_connections_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection without another request is closed in the end."""
    shorten(monkeypatch, "IDLE_TIMEOUT")
    client = await Client.to(app)
    client.send(f"GET /short HTTP/1.1\r\n{HEAD}\r\n")
    assert (await client.answer())[0] == 200
    assert await client.ends()


async def test_a_body_that_stalls_is_a_408(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops in the middle gets an answer, in the envelope, and the end."""
    shorten(monkeypatch, "BODY_TIMEOUT", "LINGER_TIMEOUT")
    client = await Client.to(app)
    client.send(f"POST /body HTTP/1.1\r\n{HEAD}Content-Length: 10\r\n\r\nhalf")
    status, document = await client.answer()
    assert status == 408
    assert document["success"] is False
    assert document["code"] == "request_timeout"
    assert await client.ends()


async def test_a_body_that_comes_slowly_is_taken(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a pause counts, not the time of the whole body."""
    shorten(monkeypatch, "BODY_TIMEOUT")
    client = await Client.to(app)
    client.send(f"POST /body HTTP/1.1\r\n{HEAD}Content-Length: 10\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(SOON / 5)  # the pace of a slow client; nothing is waited for
        client.send("x")
    status, document = await client.answer()
    assert (status, document["size"]) == (200, 10)


async def test_a_client_that_takes_nothing_is_cut(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stops reading a stream is cut, and its handler told."""
    shorten(monkeypatch, "DRAIN_TIMEOUT")
    client = await Client.to(app)
    client.send(f"GET /endless HTTP/1.1\r\n{HEAD}\r\n")
    async with asyncio.timeout(DEADLINE):
        await app.left.wait()


async def test_too_many_connections_are_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the most in use, one more is told so and closed; when one ends there is room again."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connection, "LINGER_TIMEOUT", SOON)
    busy = [await Client.to(app) for _ in range(3)]
    for client in busy:
        client.send(f"GET /endless HTTP/1.1\r\n{HEAD}\r\n")
        async with asyncio.timeout(DEADLINE):
            assert await client.reader.readexactly(1)
    refused = await Client.to(app)
    status, document = await refused.answer()
    assert (status, document["code"]) == (503, "too_many_connections")
    assert await refused.ends()
    busy[0].writer.transport.abort()
    async with asyncio.timeout(DEADLINE):
        await app.left.wait()
    client = await Client.to(app)
    client.send(f"GET /short HTTP/1.1\r\n{HEAD}\r\n")
    assert (await client.answer())[0] == 200


async def test_waiting_connections_make_room(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the most connections and says nothing shuts nobody out."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    idle = [await Client.to(app) for _ in range(3)]
    for client in idle:
        client.send(f"GET /short HTTP/1.1\r\n{HEAD}\r\n")
        assert (await client.answer())[0] == 200
    newer = await Client.to(app)
    newer.send(f"GET /short HTTP/1.1\r\n{HEAD}\r\n")
    assert (await newer.answer())[0] == 200
    assert await idle[0].ends()


def test_the_limits_are_those_that_are_told() -> None:
    """What docs/compatibility.md says of times and bounds."""
    assert connection.HEAD_TIMEOUT == 10
    assert connection.BODY_TIMEOUT == 60
    assert connection.DRAIN_TIMEOUT == 300
    assert connection.HEAD_LIMIT == 32 * 1024
    assert server.MAX_CONNECTIONS == 512
