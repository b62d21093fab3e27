"""What a terminal printed: its scrollback, and what the live connection has not got yet."""

from __future__ import annotations


class Output:
    """One buffer for both, so that nothing is held twice.

    It keeps the last `limit` bytes (the scrollback) and, while a connection is attached,
    everything that one has not taken. `total` counts all bytes ever written.
    """

    __slots__ = ("_cleared", "_cursor", "_data", "_limit", "total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._cursor: int | None = None  # where the connection is, counted like `total`
        self._cleared = 0  # where the scrollback begins at the earliest
        self.total = 0

    def write(self, data: bytes) -> None:
        """Add what was printed."""
        self._data += data
        self.total += len(data)
        self._trim()

    def _trim(self) -> None:
        keep_from = max(self._cleared, self.total - self._limit)
        if self._cursor is not None:
            keep_from = min(keep_from, self._cursor)
        excess = keep_from - (self.total - len(self._data))
        if excess > 0:
            del self._data[:excess]

    @property
    def limit(self) -> int:
        """Bytes of scrollback kept."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._trim()

    @property
    def kept(self) -> int:
        """Bytes of scrollback there are."""
        return min(self._limit, self.total - self._cleared, len(self._data))

    def scrollback(self, count: int | None = None) -> bytes:
        """The last `count` bytes of the scrollback, or all of it."""
        size = self.kept if count is None else min(self.kept, count)
        return bytes(self._data[len(self._data) - size :])

    def clear(self) -> None:
        """Forget the scrollback; what the connection has not got yet still reaches it."""
        self._cleared = self.total
        self._trim()

    def attach(self) -> None:
        """A connection came: it gets the scrollback, then what follows."""
        self._cursor = self.total - self.kept
        self._trim()

    def detach(self) -> None:
        """The connection is gone."""
        self._cursor = None
        self._trim()

    @property
    def unsent(self) -> int:
        """Bytes the connection has not taken; 0 without one."""
        return 0 if self._cursor is None else self.total - self._cursor

    def take(self, count: int) -> bytes:
        """The next bytes for the connection, at most `count`."""
        if self._cursor is None:
            return b""
        at = self._cursor - (self.total - len(self._data))
        data = bytes(self._data[at : at + count])
        self._cursor += len(data)
        self._trim()
        return data
