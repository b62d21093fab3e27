"""The front of the API: identity headers, request ids, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.host.edge.stage import DEADLINE, Stage, header

pytestmark = pytest.mark.host


@pytest.fixture
async def api(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=stage.settings.api_url, timeout=20, trust_env=False
    ) as client:
        yield client


async def test_passes(stage: Stage, api: httpx.AsyncClient) -> None:
    """Requests pass with their credentials, and with our word on where they come from."""
    sent = {
        "X-Client-ID": "oblien_1",
        "X-Client-Secret": "sk_1",
        "Authorization": "Bearer scoped",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Host": "evil",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Bastide-Account": "1",
        "X-Request-ID": "mine.1",
    }
    answer = await api.get("/workspace?page=2&token=t", headers=sent)
    assert answer.status_code == 200
    (seen,) = stage.api.seen
    assert seen["target"] == "/workspace?page=2&token=t"
    assert header(seen, "x-client-secret") == ["sk_1"]
    assert header(seen, "authorization") == ["Bearer scoped"]
    assert header(seen, "x-forwarded-for") == ["127.0.0.1"]
    for name in ("x-forwarded-host", "x-real-ip", "forwarded", "x-bastide-account"):
        assert header(seen, name) == []
    assert header(seen, "x-request-id") == ["mine.1"]
    assert answer.headers["x-request-id"] == "mine.1"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("name", ["", "with space", "a" * 129, "<script>", "a,b"])
async def test_request_ids(stage: Stage, api: httpx.AsyncClient, name: str) -> None:
    """A request id that is missing or odd is made anew."""
    answer = await api.get("/", headers={"X-Request-ID": name} if name else {})
    (made,) = header(stage.api.seen[0], "x-request-id")
    assert made != name
    assert len(made) == 36
    assert answer.headers["x-request-id"] == made


async def test_api_down(stage: Stage, api: httpx.AsyncClient) -> None:
    """While the api is down its callers get 503 in the envelope; the gateway goes on."""
    await stage.api.stop()
    answer = await api.get("/workspace", headers={"X-Request-ID": "r-9"})
    assert answer.status_code == 503
    assert answer.json() == {
        "success": False,
        "error": "unavailable",
        "code": "unavailable",
        "message": "The API is not running or is restarting. Try again in a moment.",
        "request_id": "r-9",
    }
    assert answer.headers["x-request-id"] == "r-9"
    assert (await api.get(stage.gateway + "/health", headers=stage.bearer())).status_code == 200


async def test_restart_is_bridged(stage: Stage, api: httpx.AsyncClient) -> None:
    """A request that comes while the api restarts waits for it."""
    await stage.api.stop()
    waiting = asyncio.create_task(api.get("/workspace"))
    async with stage.api:
        stage.settings.api_socket.chmod(0o666)
        async with asyncio.timeout(DEADLINE):
            assert (await waiting).status_code == 200


async def test_events(stage: Stage, api: httpx.AsyncClient) -> None:
    """Event streams of the API are not held back."""
    async with api.stream("GET", "/sse") as answer:
        lines = answer.aiter_lines()
        for number in range(3):
            stage.api.next_event.release()
            async with asyncio.timeout(DEADLINE):
                assert [await anext(lines) for _ in range(3)][1] == f'data: {{"n":{number}}}'
