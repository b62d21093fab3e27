"""From method and path to a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bastide_agent.http.errors import not_found
from bastide_agent.http.fields import percent_decode
from bastide_agent.http.message import wrong_method

if TYPE_CHECKING:
    from bastide_agent.http.message import Request, Response

Handler = Callable[["Request"], Awaitable["Response | None"]]


class _Pattern(NamedTuple):
    segments: tuple[str, ...]
    methods: dict[str, Handler]

    def match(self, segments: list[str]) -> dict[str, str] | None:
        if len(segments) != len(self.segments):
            return None
        params: dict[str, str] = {}
        for own, given in zip(self.segments, segments, strict=True):
            if own.startswith(":"):
                if not given:
                    return None
                params[own[1:]] = given
            elif own != given:
                return None
        return params


class Router:
    """Literal paths first, then `/:name` patterns, then prefixes."""

    def __init__(self) -> None:
        self._literal: dict[str, dict[str, Handler]] = {}
        self._patterns: list[_Pattern] = []
        self._prefixes: list[tuple[str, Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Serve `method path`; `:name` segments are handed over in `request.params`."""
        if "/:" not in path:
            self._literal.setdefault(path, {})[method] = handler
            return
        segments = tuple(path.split("/")[1:])
        for pattern in self._patterns:
            if pattern.segments == segments:
                pattern.methods[method] = handler
                return
        self._patterns.append(_Pattern(segments, {method: handler}))

    def add_prefix(self, prefix: str, handler: Handler) -> None:
        """Serve every method on `prefix` and everything below it."""
        self._prefixes.append((prefix, handler))

    def find(self, request: Request) -> tuple[Handler, Mapping[str, str]]:
        """The handler for a request, and the values of its pattern.

        Raises:
            ApiError: 404 for an unknown path, 405 with `Allow` for a wrong method.
        """
        path = request.path
        methods = self._literal.get(path)
        params: Mapping[str, str] = {}
        if methods is None and len(path) > 1 and path.endswith("/"):
            methods = self._literal.get(path.rstrip("/"))
        if methods is None:
            segments = [
                percent_decode(part).decode("utf-8", "surrogateescape")
                for part in request.raw_path.split(b"/")[1:]
            ]
            for pattern in self._patterns:
                found = pattern.match(segments)
                if found is not None:
                    methods, params = pattern.methods, found
                    break
        if methods is not None:
            handler = methods.get(request.method)
            if handler is None:
                raise wrong_method(sorted(methods))
            return handler, params
        for prefix, handler in self._prefixes:
            if path == prefix or path.startswith(prefix + "/"):
                return handler, {}
        raise not_found(f"there is nothing at {request.path[:200]!r}")
