"""Around every request: its id, its log line, its metrics, and the last net for exceptions."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bastide.api.envelope import failure
from bastide.api.metrics import RequestMetrics
from bastide.domain.errors import BastideError, NotReady, ServerError
from bastide.store.errors import is_full

HEADER: Final = "X-Request-ID"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_UNREACHABLE = (OperationalError, InterfaceError, PoolTimeoutError, ConnectionError)
_FULL = (
    "The database has no room left, so nothing was changed; looking at things works. Tell the "
    "operator of this server to make room where the database lies, then try again."
)
log = structlog.get_logger(__name__)


def request_id_of(request: Request) -> str:
    """The id that `RequestFrame` gave the request."""
    return str(request.scope["state"]["request_id"])


class RequestFrame:
    """The outermost part of the application.

    A plausible `X-Request-ID` is taken over, another replaced; it goes into the answer, into
    error bodies and into every log line of the request. An exception nobody expected becomes a
    `server_error` (or `not_ready`, when the database does not answer) with that id, and a log
    line with the traceback. Paths are logged without their query.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan messages pass by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                answer = _answer_to(error)
                if isinstance(answer, NotReady):  # nothing of ours: every request would say it
                    log.error("request failed", path=scope["path"], error=str(error)[:500])  # noqa: TRY400
                else:
                    log.exception("request failed", path=scope["path"])
                if status:
                    raise
                await failure(answer, request_id)(scope, receive, send_with_id)
            finally:
                _record(scope, status, time.perf_counter() - began)


def _answer_to(error: Exception) -> BastideError:
    if isinstance(error, BastideError):
        return error
    if isinstance(error, DBAPIError) and is_full(error):
        return NotReady(_FULL)
    if isinstance(error, _UNREACHABLE):
        return NotReady("The database does not answer now. Try again in a few seconds.")
    return ServerError()


def _record(scope: Scope, status: int, seconds: float) -> None:
    """One log line and one observation."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", "none")
    metrics: RequestMetrics = scope["app"].state.request_metrics
    metrics.observe(method, route, status, seconds)
    write = log.debug if scope["path"] in _QUIET else log.info
    caller = scope["state"].get("caller")
    write(
        "request",
        method=method,
        path=scope["path"][:500],
        status=status,
        ms=round(seconds * 1000, 2),
        account=getattr(caller, "account_id", None),
        credential=getattr(caller, "credential", None),
    )
