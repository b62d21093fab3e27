"""The calls about images over a real socket, as the api and the command line make them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from tests.host.images.conftest import Bench
from tests.host.images.made import small
from tests.host.images.registry import Registry
from tests.host.node.waiting import until

from bastide.node.app import _refused
from bastide.node.errors import NodeError
from bastide.node.image_routes import IMAGE_ROUTES
from bastide.node.images.garbage import Garbage

pytestmark = pytest.mark.host


@pytest.fixture
async def node(bench: Bench, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node that has images and nothing else."""
    app = Starlette(routes=IMAGE_ROUTES, exception_handlers={NodeError: _refused})
    garbage = Garbage(bench.workshop, set, cache_mb=100)

    async def images() -> Any:
        return bench.images.list()

    app.state.node = SimpleNamespace(workshop=bench.workshop, garbage=garbage, images=images)
    socket = tmp_path / "node.sock"
    config = uvicorn.Config(app, uds=str(socket), lifespan="off", log_config=None, http="httptools")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(base_url="http://node", transport=transport, timeout=60) as client:
        yield client
    server.should_exit = True
    await running


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    """The documents of a stream."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_calls(node: httpx.AsyncClient, registry: Registry) -> None:
    """Pull, list, import, remove and collect; each failure in its place."""
    small("routes").push(registry.base, "routes/app", "1")
    name = f"{registry.address}/routes/app:1"
    last = lines(await node.post("/v1/images/pull", json={"reference": name}))[-1]
    assert last["image"]["names"] == [name]
    listed = (await node.get("/v1/images")).json()["images"]
    assert name in listed[-1]["names"]
    missing = {"reference": f"{registry.address}/routes/none:1"}
    assert lines(await node.post("/v1/images/pull", json=missing))[-1]["error"] == "image_not_found"
    for body in ({}, {"reference": ""}, {"reference": name, "auth": {"username": "me"}}):
        assert (await node.post("/v1/images/pull", json=body)).status_code == 422
    archive = small("archive").archive
    path = "/v1/images/import?name=mine"
    assert lines(await node.post(path, content=archive))[-1]["image"]["id"] == "mine"
    assert lines(await node.post(path, content=b"x" * 5000))[-1]["error"] == "image_refused"
    for bad in ("", "UPPER", "debian-12", "a/b"):
        params = {"name": bad}
        refused = await node.post("/v1/images/import", params=params, content=archive)
        assert refused.status_code == 422, bad
    assert (await node.post("/v1/images/remove", json={"reference": "mine"})).json()["images"] == 1
    assert (await node.post("/v1/images/remove", json={"reference": "mine"})).status_code == 404
    assert (await node.post("/v1/images/gc", json={"everything": True})).json()["images"] == 1


async def test_who_leaves_is_not_worked_for(
    node: httpx.AsyncClient, bench: Bench, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that hangs up ends the work that nobody else waits for."""
    began, held = asyncio.Event(), asyncio.Event()

    async def endless(*args: object) -> str:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            held.set()
        return ""

    monkeypatch.setattr(bench.workshop, "_fetch", endless)
    monkeypatch.setattr("bastide.node.images.work.PULSE", 0.1)
    small("left").push(registry.base, "routes/left", "1")
    body = {"reference": f"{registry.address}/routes/left:1"}
    async with node.stream("POST", "/v1/images/pull", json=body) as answer:
        async for _ in answer.aiter_lines():
            if began.is_set():
                break
    async with asyncio.timeout(60):
        await held.wait()
    await until(lambda: not bench.workshop.busy)
