"""The calls of the node's socket that are about images (docs/architecture.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bastide.domain.image import RECIPES, ImageWords
from bastide.domain.machine import ImageInfo, ImageRequest, RegistryAuth
from bastide.node.documents import document
from bastide.node.errors import Invalid, NodeError
from bastide.node.images.garbage import Collected
from bastide.node.node import Node


class CollectRequest(BaseModel):
    """Body of `gc`: everything that nobody uses, or only what is above the limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    everything: bool = False


class LoginRequest(BaseModel):
    """Body of a login: the registry (`host` or `host:port`) and the credentials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    registry: str
    auth: RegistryAuth | None = None


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


async def images(request: Request) -> Response:
    """The images of the catalogue, and what else is there."""
    found = await _node(request).images()
    return JSONResponse({"images": [item.model_dump(mode="json") for item in found]})


async def pull(request: Request) -> Response:
    """Have an image: lines of progress, and last the image or the error."""
    wanted = await document(request, ImageRequest)
    return _stream(_node(request).workshop.have(wanted))


async def bring_in(request: Request) -> Response:
    """Read an image from an OCI archive; answers as `pull` does."""
    name = request.query_params.get("name", "")
    label = request.query_params.get("label") or name
    if any(name in (item.id, item.image) for item in RECIPES):
        raise Invalid(f"{name} is an image of the catalogue: choose another name", field="name")
    try:
        words = ImageWords(
            id=name, image=f"imported/{name}", label=label[:100], desc=f"Imported: {label[:100]}",
            category="devtools", distribution="", version="", family="oci",
        )  # fmt: skip
    except ValueError:
        raise Invalid(
            "the name has 1 to 80 lower-case letters, digits, dots and hyphens", field="name"
        ) from None
    workshop = _node(request).workshop
    place = await workshop.receive(request.stream())
    return _stream(workshop.bring_in(place, words))


async def remove(request: Request) -> Response:
    """Remove an image that nobody uses."""
    wanted = await document(request, ImageRequest)
    return _collected(await _node(request).garbage.remove(wanted.reference))


async def collect(request: Request) -> Response:
    """Remove what nobody uses."""
    wanted = await document(request, CollectRequest)
    return _collected(await _node(request).garbage.collect(everything=wanted.everything))


async def registries(request: Request) -> Response:
    """The registries this server is logged in to."""
    return JSONResponse({"registries": _node(request).workshop.logins.registries()})


async def login(request: Request) -> Response:
    """Keep credentials for a registry, or forget them."""
    wanted = await document(request, LoginRequest)
    logins = _node(request).workshop.logins
    if wanted.auth is None:
        logins.forget(wanted.registry)
    else:
        logins.keep(wanted.registry, wanted.auth)
    return JSONResponse({"registries": logins.registries()})


def _collected(found: Collected) -> Response:
    return JSONResponse({"bytes": found.bytes, "images": found.images, "layers": found.layers})


def _stream(lines: AsyncIterator[str | ImageInfo]) -> Response:
    """A JSON document a line: `message` for progress, last `image`, or `error` and `message`."""

    async def documents() -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield _line(
                    {"message": line}
                    if isinstance(line, str)
                    else {"image": line.model_dump(mode="json")}
                )
        except NodeError as error:
            yield _line({"error": error.code, "message": error.message})

    return StreamingResponse(documents(), media_type="application/x-ndjson")


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"


IMAGE_ROUTES = [
    Route("/v1/images", images, methods=["GET"]),
    Route("/v1/images/pull", pull, methods=["POST"]),
    Route("/v1/images/import", bring_in, methods=["POST"]),
    Route("/v1/images/remove", remove, methods=["POST"]),
    Route("/v1/images/gc", collect, methods=["POST"]),
    Route("/v1/registries", registries, methods=["GET"]),
    Route("/v1/registries", login, methods=["PUT"]),
]
