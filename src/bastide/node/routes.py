"""The calls of the node's socket (docs/architecture.md, The node's socket)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bastide.domain.machine import MachineSpec, Resources
from bastide.domain.network import NetworkPolicy
from bastide.node.documents import SnapshotRequest, StopRequest, document
from bastide.node.errors import Invalid
from bastide.node.image_routes import IMAGE_ROUTES
from bastide.node.node import Node

PULSE = 15.0
"""Seconds of silence after which a stream of events gets a blank line."""

_MOST_CONSOLE = 1024 * 1024


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


def _machine(request: Request) -> str:
    return str(request.path_params["machine"])


def _answer(content: BaseModel) -> Response:
    return Response(content.model_dump_json(), media_type="application/json")


def _list(name: str, items: list[Any]) -> Response:
    return JSONResponse({name: [item.model_dump(mode="json") for item in items]})


async def health(request: Request) -> Response:
    """The node listens."""
    del request
    return JSONResponse({"status": "ok"})


async def capabilities(request: Request) -> Response:
    """What this node can do."""
    return _answer(_node(request).capabilities())


async def create(request: Request) -> Response:
    """Reserve address and disk."""
    return _answer(await _node(request).fleet.create(await document(request, MachineSpec)))


async def start(request: Request) -> Response:
    """Boot; the document's id must be the path's."""
    return _answer(await _node(request).power.start(await _spec(request)))


async def _spec(request: Request) -> MachineSpec:
    spec = await document(request, MachineSpec)
    if spec.id != _machine(request):
        raise Invalid(f"the document is of {spec.id}, the call of {_machine(request)}", field="id")
    return spec


async def stop(request: Request) -> Response:
    """End it, asked first."""
    grace = (await document(request, StopRequest)).grace
    return _answer(await _node(request).power.stop(_machine(request), grace))


async def kill(request: Request) -> Response:
    """End it at once."""
    return _answer(await _node(request).power.kill(_machine(request)))


async def pause(request: Request) -> Response:
    """Freeze it."""
    return _answer(await _node(request).power.pause(_machine(request)))


async def resume(request: Request) -> Response:
    """Let it go on."""
    return _answer(await _node(request).power.resume(_machine(request)))


async def delete(request: Request) -> Response:
    """Remove all of it."""
    keep = request.query_params.get("keep_snapshot") == "true"
    await _node(request).fleet.delete(_machine(request), keep_snapshot=keep)
    return Response(status_code=204)


async def network(request: Request) -> Response:
    """Put a policy in force."""
    policy = await document(request, NetworkPolicy)
    return _answer(await _node(request).fleet.apply_network(_machine(request), policy))


async def resources(request: Request) -> Response:
    """Other limits for a running machine."""
    sizes = await document(request, Resources)
    return _answer(await _node(request).power.resize(_machine(request), sizes))


async def blocked(request: Request) -> Response:
    """What the firewall refused it lately."""
    return _answer(await _node(request).fleet.blocked(_machine(request)))


async def snapshot(request: Request) -> Response:
    """Capture memory and disk."""
    after = (await document(request, SnapshotRequest)).after
    return _answer(await _node(request).captures.take(_machine(request), after))


async def last_snapshot(request: Request) -> Response:
    """The last snapshot, also of a machine that was destroyed."""
    return _answer(_node(request).captures.get(_machine(request)))


async def restore(request: Request) -> Response:
    """Go back to the last snapshot; the document's id must be the path's."""
    return _answer(await _node(request).captures.bring_back(await _spec(request)))


async def machines(request: Request) -> Response:
    """What every machine does now."""
    return _list("machines", _node(request).fleet.all())


async def machine(request: Request) -> Response:
    """What one machine does now."""
    return _answer(_node(request).fleet.status(_machine(request)))


async def stats(request: Request) -> Response:
    """What one machine uses now."""
    return _answer(await _node(request).fleet.stats(_machine(request)))


async def console(request: Request) -> Response:
    """The last bytes of its boot output."""
    text = request.query_params.get("limit", str(64 * 1024))
    # Its length first: a number of thousands of digits is refused by int() itself.
    number = int(text) if len(text) <= 9 and text.isascii() and text.isdigit() else 0
    if not 1 <= number <= _MOST_CONSOLE:
        raise Invalid(f"limit must be a number from 1 to {_MOST_CONSOLE}", field="limit")
    output = _node(request).fleet.console(_machine(request), number)
    return PlainTextResponse(output.decode(errors="replace"))


async def events(request: Request) -> Response:
    """What happens to machines, one JSON document a line."""

    async def lines() -> AsyncIterator[str]:
        yield "\n"
        async for event in _node(request).events.listen(PULSE):
            yield "\n" if event is None else event.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


_ONE = "/v1/machines/{machine}"
ROUTES = [
    Route("/v1/health", health),
    Route("/v1/capabilities", capabilities),
    *IMAGE_ROUTES,
    Route("/v1/machines", machines, methods=["GET"]),
    Route("/v1/machines", create, methods=["POST"]),
    Route("/v1/events", events),
    Route(_ONE, machine, methods=["GET"]),
    Route(_ONE, delete, methods=["DELETE"]),
    Route(f"{_ONE}/start", start, methods=["POST"]),
    Route(f"{_ONE}/stop", stop, methods=["POST"]),
    Route(f"{_ONE}/kill", kill, methods=["POST"]),
    Route(f"{_ONE}/pause", pause, methods=["POST"]),
    Route(f"{_ONE}/resume", resume, methods=["POST"]),
    Route(f"{_ONE}/resources", resources, methods=["PUT"]),
    Route(f"{_ONE}/network", network, methods=["PUT"]),
    Route(f"{_ONE}/blocked", blocked),
    Route(f"{_ONE}/snapshot", last_snapshot, methods=["GET"]),
    Route(f"{_ONE}/snapshot", snapshot, methods=["POST"]),
    Route(f"{_ONE}/restore", restore, methods=["POST"]),
    Route(f"{_ONE}/stats", stats),
    Route(f"{_ONE}/console", console),
]
