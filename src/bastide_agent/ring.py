"""A bounded memory of the last bytes of an output."""

from __future__ import annotations


class Ring:
    """Keeps the last `limit` bytes written; `total` counts all of them."""

    __slots__ = ("_data", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """Add bytes; the oldest fall out above the limit."""
        self.total += len(data)
        self._data += data
        if len(self._data) > self.limit:
            del self._data[: len(self._data) - self.limit]

    def tail(self, count: int | None = None) -> bytes:
        """The last `count` bytes kept, or all that are kept."""
        if count is None or count >= len(self._data):
            return bytes(self._data)
        return bytes(self._data[-count:]) if count > 0 else b""

    def clear(self) -> None:
        """Forget what is kept."""
        self._data.clear()

    def __len__(self) -> int:
        return len(self._data)
