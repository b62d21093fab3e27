"""The application: middleware, error handlers, routes. Nothing is built at import time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from bastide.api.authentication import STATIC, Authentication
from bastide.api.body import BodyLimit
from bastide.api.context import Services
from bastide.api.envelope import Envelope, failure
from bastide.api.metrics import RequestMetrics
from bastide.api.openapi import describe
from bastide.api.refusals import refused_by_framework, refused_request
from bastide.api.requests import RequestFrame, request_id_of
from bastide.api.routes import (
    account,
    archives,
    images,
    keys,
    lifecycle,
    network,
    power,
    resources,
    runtime_access,
    snapshots,
    ssh,
    system,
    tokens,
    workspaces,
)
from bastide.domain.errors import BastideError

ROUTERS = (
    system.router,
    power.router,  # asked for most: they are tried in this order
    tokens.router,
    keys.router,
    images.router,  # before the workspaces: its path would read as the id "images"
    account.router,  # as well: "quota", "estimate", "archived"
    workspaces.router,
    lifecycle.router,
    resources.router,
    snapshots.router,
    archives.router,
    runtime_access.router,
    ssh.router,
    network.router,
)


def create_app(open_services: Callable[[], AbstractAsyncContextManager[Services]]) -> FastAPI:
    """The API over the services that `open_services` opens when the application starts.

    `open_services` is `bastide.api.assembly.assemble` with its settings, or a test's own.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services() as services:
            app.state.request_metrics = RequestMetrics(services.metrics)
            app.state.services = services
            yield

    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url=STATIC,
        title="Bastide",
        version=version("bastide"),
        lifespan=lifespan,
        default_response_class=Envelope,
        redirect_slashes=False,
        strict_content_type=False,
        middleware=[
            Middleware(RequestFrame),
            Middleware(Authentication),
            Middleware(BodyLimit),
        ],
    )
    app.add_exception_handler(BastideError, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    for router in ROUTERS:
        app.include_router(router)
    describe(app)
    return app


async def _answer(request: Request, error: Exception) -> Envelope:
    """Any refusal as an envelope."""
    match error:
        case BastideError():
            refusal = error
        case RequestValidationError():
            refusal = refused_request(error.errors())
        case HTTPException():
            refusal = refused_by_framework(error)
        case _:
            raise error
    return failure(refusal, request_id_of(request))
