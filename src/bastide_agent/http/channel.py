"""A connection that left HTTP: raw bytes both ways (WebSocket, proxied upgrades)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ClientGoneError

if TYPE_CHECKING:
    from bastide_agent.http.connection import Connection

HIGH_WATER = 256 * 1024


class Channel:
    """Read and write the raw bytes of a connection, with back-pressure both ways."""

    __slots__ = ("_buffer", "_connection", "_eof", "_waiter")

    def __init__(self, connection: Connection, leftover: bytes) -> None:
        self._connection = connection
        self._buffer = bytearray(leftover)
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Bytes from the socket."""
        self._buffer += data
        if len(self._buffer) > HIGH_WATER:
            self._connection.pause()
        self._wake()

    def feed_eof(self) -> None:
        """The client sends no more."""
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """What has arrived, at least one byte; empty when the client sends no more."""
        while not self._buffer and not self._eof:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer)
        self._buffer.clear()
        if not self._eof:
            self._connection.resume()
        return data

    def send(self, data: bytes) -> None:
        """Write without waiting; `pending` says how much has not left yet.

        Raises:
            ClientGoneError: the connection is closed.
        """
        if self._connection.is_closing():
            raise ClientGoneError("the client closed the connection")
        self._connection.write(data)

    async def write(self, data: bytes) -> None:
        """Write, and wait while the client is slow."""
        self.send(data)
        await self._connection.drain()

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written."""
        await self._connection.drain()

    @property
    def pending(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self._connection.unsent()

    def set_send_buffer(self, size: int) -> None:
        """Let the kernel hold about this many bytes, so that `pending` tells of a slow client."""
        self._connection.set_send_buffer(size)

    def close(self) -> None:
        """Close once everything written has left."""
        self._connection.close()

    def abort_after(self, seconds: float) -> None:
        """Close at once when it is still open then."""
        self._connection.abort_after(seconds)

    def abort(self) -> None:
        """Close at once, dropping what has not left."""
        self._connection.abort()
