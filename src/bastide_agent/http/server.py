"""A listening port: who may call, what answers, and which connections are open."""

from __future__ import annotations

import asyncio
import os
from _operator import _compare_digest
from typing import TYPE_CHECKING

from bastide_agent.http.connection import Connection
from bastide_agent.http.errors import ApiError, ClientGoneError, invalid, not_found
from bastide_agent.http.message import Response, to_json

if TYPE_CHECKING:
    from bastide_agent.http.message import Request
    from bastide_agent.http.router import Router

MAX_CONNECTIONS = 512
TARGETS = (b"default", b"local")  # spec runtime 11: this workspace under both names
QUERY_TOKEN_PATHS = ("/ws", "/proxy", "/desktop")  # spec runtime 3.5


class Server:
    """One port. `token` may be replaced while it runs; None admits nobody."""

    def __init__(self, router: Router, token: str | None) -> None:
        self.router = router
        self.token = token
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}  # oldest first

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one; `port` says which.

        Raises:
            OSError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), host, port, backlog=512, reuse_address=True
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.drop_connections()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._listener is not None

    def drop_connections(self, but: Connection | None = None) -> None:
        """Cut every open connection, streams included, except `but`."""
        for connection in list(self._connections):
            if connection is not but:
                connection.abort()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False when there are too many that are in use.

        Of those that wait for a request the oldest makes room: whoever opens hundreds and says
        nothing shuts nobody out.
        """
        self._connections[connection] = None
        if len(self._connections) <= MAX_CONNECTIONS:
            return True
        for oldest in self._connections:
            if oldest.waiting and oldest is not connection:
                del self._connections[oldest]
                oldest.abort()
                return True
        return False

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)

    async def dispatch(self, request: Request) -> Response | None:
        """Answer one request; every error becomes an envelope (spec runtime 0.1).

        Raises:
            ClientGoneError: nobody is there to answer.
        """
        request.id = request_id(request.header("x-request-id"))
        try:
            strip_target(request)
            self._authenticate(request)
            handler, request.params = self.router.find(request)
            response = await handler(request)
        except ApiError as error:
            response = self.error_response(error, request.id)
        except (ClientGoneError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001  (one bad request must not end the agent)
            message = f"unexpected {type(error).__name__}; this is a fault of the agent"
            response = self.error_response(ApiError(500, "internal_error", message), request.id)
        if response is not None:
            response.headers = {**response.headers, "X-Request-ID": request.id}
        return response

    def error_response(self, error: ApiError, request_id: str) -> Response:
        """The envelope of an error."""
        return Response(error.status, to_json(error.envelope(request_id)), headers=error.headers)

    def _authenticate(self, request: Request) -> None:
        header = request.header("authorization") or ""
        scheme, _, given = header.partition(" ")
        token = given.strip() if scheme.lower() == "bearer" else ""
        if not token and request.path.startswith(QUERY_TOKEN_PATHS):
            value = request.query.raw("token")
            token = value if isinstance(value, str) else ""
        if self.token is None or not _compare_digest(
            token.encode("utf-8", "surrogateescape"), self.token.encode()
        ):
            what = "the token is not valid here" if token else "a bearer token is required"
            raise ApiError(
                401, "unauthorized", what, headers={"WWW-Authenticate": 'Bearer realm="bastide"'}
            )


def request_id(given: str | None) -> str:
    """The caller's id when it is sane, else a new one."""
    if given and len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return "req_" + os.urandom(8).hex()


def strip_target(request: Request) -> None:
    """Remove an optional `/runtimes/<target>` prefix.

    Raises:
        ApiError: 404 for a target that is not this workspace.
    """
    if not request.raw_path.startswith(b"/runtimes/"):
        return
    target, slash, rest = request.raw_path[len(b"/runtimes/") :].partition(b"/")
    if target not in TARGETS:
        name = target.decode("ascii", "backslashreplace")[:64]
        raise not_found(f"there is no target {name!r}; this workspace is 'default' or 'local'")
    if rest.startswith((b"runtimes", b"desktop")):
        raise invalid("target", "targets and desktop are served without a target prefix")
    request.raw_path = slash + rest
    request.path = request.path.split("/", 3)[3] if slash else ""
    request.path = "/" + request.path
