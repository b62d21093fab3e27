"""The HTTP application on the node's socket."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bastide.node.errors import NodeError, NoSpace
from bastide.node.node import Node
from bastide.node.routes import ROUTES

_log = structlog.get_logger(__name__)


def create_app(node: Node) -> Starlette:
    """The application over a node, which it opens and closes."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.node = node
        await node.open()
        try:
            yield
        finally:
            await node.close()

    return Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        exception_handlers={
            NodeError: _refused,
            HTTPException: _refused_by_framework,
            OSError: _failed_by_the_host,
            Exception: _failed,
        },
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, NodeError)  # noqa: S101 - starlette's handlers are not generic
    level = _log.error if error.status >= 500 else _log.info
    level("node.refused", path=request.url.path, code=error.code, reason=error.message)
    return _problem(error.status, error.code, error.message, error.details)


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = "not_found" if error.status_code == 404 else "method_not_allowed"
    return _problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")


async def _failed_by_the_host(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        message = "the storage of the host is full: delete workspaces or add storage"
        return await _refused(request, NoSpace(message))
    return await _failed(request, error)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("node.failed", path=request.url.path, exc_info=error)
    return _problem(500, "internal", f"the node failed: {type(error).__name__}: {error}")


def _problem(
    status: int, code: str, message: str, details: dict[str, object] | None = None
) -> Response:
    content = {"error": code, "message": message, "details": details or {}}
    return JSONResponse(content, status_code=status)
