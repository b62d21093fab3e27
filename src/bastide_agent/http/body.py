"""The body of a request, read as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, ClientGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bastide_agent.http.connection import Connection

HIGH_WATER = 256 * 1024


def too_large(limit: int) -> ApiError:
    """A 413 that states the limit."""
    message = f"the body is larger than {limit} bytes, the most this endpoint takes"
    return ApiError(413, "payload_too_large", message, {"limit_bytes": limit})


class Body:
    """An asynchronous iterator of `bytes`; iterate it once.

    `length` is the announced Content-Length, or None (chunked). At most about 256 KiB wait here:
    the connection stops reading from the socket while nobody takes them.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_waiter", "complete", "length", "waiting")

    def __init__(self, connection: Connection, length: int | None) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.waiting = 0  # bytes
        self.complete = False
        self.length = length

    def feed(self, data: bytes) -> bool:
        """Take what arrived; True when the connection should stop reading."""
        self._chunks.append(data)
        self.waiting += len(data)
        self._wake()
        return self.waiting > HIGH_WATER

    def finish(self, error: Exception | None = None) -> None:
        """The body is complete, or will never be."""
        self.complete = self.complete or error is None
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            ClientGoneError: the client left before the end.
            ApiError: 408 when the client sends nothing for too long.
        """
        while not self._chunks:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            self._connection.want_body()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self.waiting -= len(data)
        if not self.complete and self.waiting <= HIGH_WATER:
            self._connection.want_body()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.next():
            yield data

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes.

        Raises:
            ApiError: 413 above the limit; told by Content-Length before anything is read.
        """
        if self.length is not None and self.length > limit:
            raise too_large(limit)
        parts: list[bytes] = []
        size = 0
        while data := await self.next():
            size += len(data)
            if size > limit:
                raise too_large(limit)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def gone() -> ClientGoneError:
    """The error for a body that ended in the middle."""
    return ClientGoneError("the client closed the connection")
