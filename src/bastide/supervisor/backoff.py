"""How long to wait before a service that ended is started again."""

from __future__ import annotations


class Backoff:
    """Doubling delays in seconds, from `first` to `most`.

    A service that lived `settled` seconds is forgiven what happened before.
    """

    def __init__(self, first: float = 0.2, most: float = 10.0, settled: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._settled = settled
        self._next = first

    def after(self, lifetime: float) -> float:
        """The delay after a life of `lifetime` seconds."""
        if lifetime >= self._settled:
            self._next = self._first
        delay = self._next
        self._next = min(self._most, delay * 2)
        return delay
