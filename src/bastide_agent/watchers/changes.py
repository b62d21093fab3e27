"""Changes that wait to be told: one per path, the last operation wins."""

from __future__ import annotations

from collections.abc import Callable

DEBOUNCE = 0.05  # seconds (spec runtime 9)
LIMIT = 8192  # paths


class Changes:
    """A change is due `DEBOUNCE` after the first one of its path that has not been told.

    Not after the last: a file that is written without pause must still be told. While a client is
    slow the changes of a path go on melting into one; above the limit they are dropped, and
    `lost` says so.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[str, float]] = {}  # in the order in which they are due
        self.lost = False

    def add(self, path: str, operation: str) -> None:
        """A path changed."""
        known = self._waiting.get(path)
        if known is not None:
            self._waiting[path] = (operation, known[1])
        elif len(self._waiting) < LIMIT:
            self._waiting[path] = (operation, self._clock() + DEBOUNCE)
        else:
            self.lost = True

    @property
    def due_at(self) -> float | None:
        """When the next is due, by the clock; None when none waits."""
        first = next(iter(self._waiting.values()), None)
        return first[1] if first is not None else None

    def take(self) -> tuple[str, str] | None:
        """The next change that is due: path and operation."""
        due_at = self.due_at
        if due_at is None or due_at > self._clock():
            return None
        path = next(iter(self._waiting))
        return path, self._waiting.pop(path)[0]
