"""Reading the whole body of a request, up to a limit, before anybody parses it."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bastide.api.envelope import failure
from bastide.domain.errors import TooLarge

LIMIT: Final = 1024 * 1024


class BodyLimit:
    """Refuses bodies of more than `LIMIT` bytes with 413, whether announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of one request; lifespan messages pass by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        body = None
        if announced.isdecimal() and int(announced[:20]) <= LIMIT:
            try:
                body = await _read(receive)
            except ConnectionResetError:
                return
        if body is None:
            error = TooLarge(headers={"Connection": "close"})
            await failure(error, scope["state"]["request_id"])(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)


async def _read(receive: Receive) -> bytes | None:
    """The body, or None when it is too large.

    Raises:
        ConnectionResetError: the client went away.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message.get("body", b"")
        if len(body) > LIMIT:
            return None
        if not message.get("more_body", False):
            return bytes(body)
