"""Answers sent piece by piece: raw, server-sent events, and lines of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide_agent.http.message import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bastide_agent.http.connection import Connection
    from bastide_agent.http.message import Request

NO_BUFFERING = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Stream:
    """The body of an answer in pieces (chunked when it has no length)."""

    __slots__ = ("_connection", "ended")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ended = False

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow.

        Raises:
            ClientGoneError: the client is gone.
        """
        self._connection.send_data(data)
        await self._connection.drain()

    def end(self) -> None:
        """The body is complete. Called for the handler when it returns."""
        if not self.ended:
            self.ended = True
            self._connection.end_stream()


class EventStream:
    """Server-sent events. Lines are spelled as the strict client wants them (spec runtime 0.4)."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @classmethod
    async def open(cls, request: Request, headers: Mapping[str, str] | None = None) -> EventStream:
        """Send the head of a 200 `text/event-stream`."""
        extra = {**NO_BUFFERING, **(headers or {})}
        return cls(await request.start(200, "text/event-stream", extra))

    @staticmethod
    def frame(event: str, data: Mapping[str, object], event_id: str | None = None) -> bytes:
        """One event as bytes; several may be joined into one write."""
        head = f"id: {event_id}\n" if event_id is not None else ""
        return f"{head}event: {event}\ndata: ".encode() + to_json(data) + b"\n\n"

    async def send(
        self, event: str, data: Mapping[str, object], event_id: str | None = None
    ) -> None:
        """Send one event."""
        await self._stream.write(self.frame(event, data, event_id))

    async def write(self, frames: bytes) -> None:
        """Send frames made before."""
        await self._stream.write(frames)

    async def keep_alive(self) -> None:
        """A comment, so that nothing on the way takes the stream for dead."""
        await self._stream.write(b": keep-alive\n\n")


class Lines:
    """Newline-delimited JSON, every line ended (spec runtime 0.5)."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @classmethod
    async def open(cls, request: Request) -> Lines:
        """Send the head of a 200 `application/x-ndjson`."""
        return cls(await request.start(200, "application/x-ndjson", NO_BUFFERING))

    async def send(self, value: Mapping[str, object]) -> None:
        """Send one line."""
        await self._stream.write(to_json(value) + b"\n")

    async def write(self, lines: bytes) -> None:
        """Send lines made before."""
        await self._stream.write(lines)
