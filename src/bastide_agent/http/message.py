"""What a handler sees (`Request`) and gives back (`Response`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.http.fields import Fields, parse_query, percent_decode

if TYPE_CHECKING:
    from bastide_agent.http.body import Body
    from bastide_agent.http.channel import Channel
    from bastide_agent.http.connection import Connection
    from bastide_agent.http.streams import Stream

JSON_LIMIT = 1024 * 1024
_encode = json.JSONEncoder(separators=(",", ":")).encode
Headers = Sequence[tuple[bytes, bytes]]


def to_json(value: object) -> bytes:
    """Compact JSON in ASCII (bytes of names that are not UTF-8 come out as lone surrogates)."""
    return _encode(value).encode("ascii")


class Response:
    """A whole answer. `body` are bytes; `headers` are added to content type and length."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}


def ok(values: Mapping[str, object] | None = None, status: int = 200) -> Response:
    """A success with `success: true` (spec runtime 0.2)."""
    return Response(status, to_json({"success": True, **(values or {})}))


def plain(values: Mapping[str, object], status: int = 200) -> Response:
    """A success whose document is given as it is."""
    return Response(status, to_json(values))


class Request:
    """One request. `path` is decoded and has lost its `/runtimes/<target>` prefix.

    `raw_path` and `raw_query` are the bytes as they came (same prefix removed), `params` the
    parts that `/:name` matched, `headers` pairs of lower-case name and value.
    """

    __slots__ = (
        "_connection", "_query", "body", "headers", "id", "method", "params", "path", "raw_path",
        "raw_query",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, method: bytes, target: bytes, headers: Headers, body: Body
    ) -> None:
        self._connection = connection
        self._query: Fields | None = None
        self.method = method.decode("ascii", "replace")
        self.headers = headers
        self.body = body
        self.id = ""
        self.params: Mapping[str, str] = {}
        if not target.startswith(b"/"):  # absolute form: http://host/path
            _, found, rest = target.partition(b"://")
            target = b"/" + rest.partition(b"/")[2] if found else b"/" + target
        self.raw_path, _, self.raw_query = target.partition(b"?")
        self.path = percent_decode(self.raw_path).decode("utf-8", "surrogateescape")

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name, decoded as Latin-1."""
        wanted = name.encode("ascii")
        for key, value in self.headers:
            if key == wanted:
                return value.decode("latin-1")
        return None

    @property
    def connection(self) -> Connection:
        """The connection it came on."""
        return self._connection

    @property
    def query(self) -> Fields:
        """The query parameters."""
        if self._query is None:
            self._query = Fields(parse_query(self.raw_query))
        return self._query

    async def json(self, limit: int = JSON_LIMIT) -> dict[str, object]:
        """The body as a JSON object; an empty body is `{}` (spec runtime 0.3).

        Raises:
            ApiError: 400 when it is no JSON object in UTF-8, 413 above `limit` bytes.
        """
        raw = await self.body.read(limit)
        if not raw.strip():
            return {}
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise invalid("body", "the body must be JSON in UTF-8") from None
        except (ValueError, RecursionError) as error:
            reason = error if isinstance(error, ValueError) else "nested too deeply"
            raise invalid("body", f"the body must be a JSON object: {reason}") from None
        if not isinstance(value, dict):
            raise invalid("body", "the body must be a JSON object")
        return value

    async def fields(self, limit: int = JSON_LIMIT) -> Fields:
        """The JSON body as typed fields."""
        return Fields(await self.json(limit))

    async def start(
        self, status: int, content_type: str, headers: Mapping[str, str] | None = None
    ) -> Stream:
        """Send the head of an answer whose body follows as a stream."""
        return self._connection.start_stream(self, status, content_type, headers or {})

    async def start_raw(self, status: int, headers: Headers, reason: bytes = b"") -> Stream:
        """Like `start`, with exactly these headers (for a proxy)."""
        return self._connection.start_raw_stream(status, headers, reason)

    def take_over(self) -> Channel:
        """Leave HTTP: the handler owns the connection's bytes until it returns.

        Nothing has been answered yet; the handler writes the `101` itself.
        """
        return self._connection.take_over()


def wrong_method(allowed: Sequence[str]) -> ApiError:
    """A 405 that lists what the path takes."""
    allow = ", ".join(allowed)
    message = f"this path takes {allow}"
    return ApiError(405, "method_not_allowed", message, headers={"Allow": allow})
