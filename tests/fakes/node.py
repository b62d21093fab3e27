"""The node's socket over a fake engine, so that its client is tested on a real connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from tests.fakes.engine import FakeEngine

from bastide.domain.machine import ImageRequest, MachineSpec, Resources, SnapshotAfter
from bastide.domain.network import NetworkPolicy
from bastide.engine.contract import EngineError, UnknownMachine, Unsupported


def node_app(engine: FakeEngine) -> FastAPI:  # noqa: C901 - one small handler per call
    """The calls of architecture, The node's socket."""
    app = FastAPI()
    shown = _shown

    @app.exception_handler(EngineError)
    async def refuse(request: Request, error: EngineError) -> JSONResponse:
        status = 503
        if isinstance(error, UnknownMachine):
            status = 404
        if isinstance(error, Unsupported):
            status = 501
        body = {"error": error.code, "message": error.message, "details": {}}
        return JSONResponse(body, status_code=status)

    @app.get("/v1/capabilities")
    async def capabilities() -> Any:
        return await shown(engine.capabilities())

    @app.get("/v1/images")
    async def images() -> Any:
        return {"images": [image.model_dump(mode="json") for image in await engine.images()]}

    @app.post("/v1/images/pull")
    async def pull(wanted: ImageRequest) -> StreamingResponse:
        told: list[str] = []

        async def lines() -> AsyncIterator[str]:
            try:
                found = await engine.pull(wanted.reference, wanted.auth, told.append)
                last: dict[str, Any] = {"image": found.model_dump(mode="json")}
            except EngineError as error:
                last = {"error": error.code, "message": error.message}
            for document in (*({"message": text} for text in told), last):
                yield json.dumps(document) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.get("/v1/machines")
    async def poll() -> Any:
        return {"machines": [each.model_dump(mode="json") for each in await engine.poll()]}

    @app.post("/v1/machines")
    async def create(spec: MachineSpec) -> Any:
        return await shown(engine.create(spec))

    @app.post("/v1/machines/{machine}/snapshot")
    async def snapshot(machine: str, request: Request) -> Any:
        word = (await request.json())["after"]
        return await shown(engine.snapshot(machine, SnapshotAfter(word) if word else None))

    @app.post("/v1/machines/{machine}/restore")
    async def restore(machine: str, spec: MachineSpec) -> Any:
        assert machine == spec.id
        return await shown(engine.restore(spec))

    @app.post("/v1/machines/{machine}/{verb}")
    async def act(machine: str, verb: str, request: Request) -> Any:
        body = await request.body()
        match verb:
            case "start":
                return await shown(engine.start(MachineSpec.model_validate_json(body)))
            case "stop":
                return await shown(engine.stop(machine, (await request.json())["grace"]))
            case "kill":
                return await shown(engine.kill(machine))
            case "pause":
                return await shown(engine.pause(machine))
            case "resume":
                return await shown(engine.resume(machine))
            case _:
                raise Unsupported(f"{verb} is not supported")

    @app.put("/v1/machines/{machine}/resources")
    async def resources(machine: str, sizes: Resources) -> Any:
        return await shown(engine.resize(machine, sizes))

    @app.put("/v1/machines/{machine}/network")
    async def network(machine: str, policy: NetworkPolicy) -> Any:
        return await shown(engine.apply_network(machine, policy))

    @app.get("/v1/machines/{machine}")
    async def status(machine: str) -> Any:
        return await shown(engine.status(machine))

    @app.delete("/v1/machines/{machine}", status_code=204)
    async def delete(machine: str, keep_snapshot: bool = False) -> Response:  # noqa: FBT001, FBT002
        await engine.delete(machine, keep_snapshot=keep_snapshot)
        return Response(status_code=204)

    @app.get("/v1/machines/{machine}/snapshot")
    async def last_snapshot(machine: str) -> Any:
        found = await engine.last_snapshot(machine)
        if found is None:
            raise UnknownMachine(f"there is no snapshot of {machine}")
        return found.model_dump(mode="json")

    @app.get("/v1/machines/{machine}/stats")
    async def stats(machine: str) -> Any:
        return await shown(engine.stats(machine))

    @app.get("/v1/machines/{machine}/console")
    async def console(machine: str, limit: int) -> PlainTextResponse:
        return PlainTextResponse(await engine.console(machine, limit))

    @app.get("/v1/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(_lines(engine), media_type="application/x-ndjson")

    return app


async def _shown(answer: Awaitable[Any]) -> Any:
    return (await answer).model_dump(mode="json")


async def _lines(engine: FakeEngine) -> AsyncIterator[str]:
    yield "\n"
    async for event in engine.events():
        yield event.model_dump_json() + "\n"


@asynccontextmanager
async def fake_node(socket: Path, engine: FakeEngine) -> AsyncIterator[None]:
    """Serve the engine on `socket` within the block."""
    server = uvicorn.Server(
        uvicorn.Config(
            node_app(engine), uds=str(socket), log_config=None, timeout_graceful_shutdown=1
        )
    )
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        engine.drop_listeners()
        server.should_exit = True
        await task
