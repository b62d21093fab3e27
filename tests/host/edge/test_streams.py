"""WebSockets, event streams and big bodies pass as they come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import websockets
from tests.host.edge.stage import DEADLINE, RAW_ONE, Stage, header

from bastide.edge.haproxy import Timeouts

pytestmark = pytest.mark.host

SIZE = 50 * 1024 * 1024


@pytest.mark.parametrize("place", ["header", "query", "target"])
async def test_websocket(stage: Stage, place: str) -> None:
    """Frames pass both ways, with the token in the header or the query."""
    base = stage.gateway.replace("http", "ws")
    token = stage.token()
    url = {
        "header": f"{base}/ws",
        "query": f"{base}/ws?cols=80&token={token}",
        "target": f"{base}/runtimes/local/ws?token={token}",
    }[place]
    headers = stage.bearer() if place == "header" else {}
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        for message in ("text", b"\x01binary", "x" * 300_000):
            await socket.send(message)
            assert await socket.recv() == message
    (seen,) = stage.one.seen
    assert header(seen, "authorization") == [f"Bearer {RAW_ONE}"]
    assert "token" not in str(seen["target"])
    if place == "query":
        assert seen["target"] == "/ws?cols=80"


async def test_websocket_without_token(stage: Stage) -> None:
    """An upgrade without a right token is an ordinary 401; an Origin changes nothing."""
    url = stage.gateway.replace("http", "ws") + "/ws?token=wrong"
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(url, origin="https://evil.example", proxy=None):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 401
    assert not stage.one.seen


async def test_events_are_not_held_back(stage: Stage, client: httpx.AsyncClient) -> None:
    """Each event arrives before the next is made, and a lost client is noticed when idle."""
    async with client.stream("POST", "/sse", headers=stage.bearer()) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        for number in range(5):
            stage.one.next_event.release()
            async with asyncio.timeout(DEADLINE):
                assert await anext(lines) == "event: tick"
                assert await anext(lines) == f'data: {{"n":{number}}}'
                assert await anext(lines) == ""
    async with asyncio.timeout(DEADLINE):
        await stage.one.stream_closed.wait()


async def test_silence_in_a_stream() -> None:
    """Only the server's timeout bounds the silence of a stream, not the client's."""
    stage = Stage(Timeouts(client="500ms", server="60s"))
    try:
        async with stage.one, httpx.AsyncClient(base_url=stage.gateway, timeout=20) as client:
            await stage.start_haproxy()
            await stage.open()
            async with client.stream("POST", "/sse", headers=stage.bearer()) as answer:
                lines = answer.aiter_lines()
                stage.one.next_event.release()
                assert await anext(lines) == "event: tick"
                await asyncio.sleep(1.5)  # the silence itself is what is tested
                assert not stage.one.stream_closed.is_set()
                stage.one.next_event.release()
                assert [await anext(lines) for _ in range(4)][-1] == 'data: {"n":1}'
    finally:
        await stage.close()


async def test_big_upload(stage: Stage, client: httpx.AsyncClient) -> None:
    """50 MB pass as a stream, with a length and without one."""
    part = bytes(range(256)) * 256

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(part)):
            yield part

    digest = hashlib.sha256(part * (SIZE // len(part))).hexdigest()
    for lengths in ({}, {"Content-Length": str(SIZE)}):
        answer = await client.post("/upload", headers=stage.bearer() | lengths, content=parts())
        assert answer.json()["size"] == SIZE
        assert answer.json()["sha256"] == digest


async def test_big_download(stage: Stage, client: httpx.AsyncClient) -> None:
    """50 MB arrive whole."""
    size = 0
    async with client.stream("GET", f"/download?n={SIZE}", headers=stage.bearer()) as answer:
        async for part in answer.aiter_raw():
            size += len(part)
    assert answer.status_code == 200
    assert size >= SIZE
