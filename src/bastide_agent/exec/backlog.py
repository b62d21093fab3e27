"""The output of a task as numbered events, bounded, and the budget all tasks share."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

TASK_LIMIT = 2 * 1024 * 1024  # bytes one task may keep while there is room
TASK_FLOOR = 192 * 1024  # bytes one task may always keep
TOTAL_LIMIT = 12 * 1024 * 1024  # bytes all tasks together keep before they shrink to the floor
EVENT_COST = 160  # bytes an event costs beside its data


class OutputEvent(NamedTuple):
    """A piece of output; `number` counts from 1 within its task."""

    number: int
    stream: str
    data: bytes


class Budget:
    """Bytes kept by all backlogs together."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0


class Backlog:
    """The newest events of a task. `last` is the newest number, `dropped` how many fell out."""

    __slots__ = ("_budget", "_events", "dropped", "last", "size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._events: deque[OutputEvent] = deque()
        self.last = 0
        self.dropped = 0
        self.size = 0

    def add(self, stream: str, data: bytes) -> None:
        """Add output; the oldest falls out above the limits."""
        self.last += 1
        self._events.append(OutputEvent(self.last, stream, data))
        self._grow(len(data) + EVENT_COST)
        limit = TASK_FLOOR if self._budget.used > TOTAL_LIMIT else TASK_LIMIT
        while self.size > limit:
            self._grow(-len(self._events.popleft().data) - EVENT_COST)
            self.dropped += 1

    def _grow(self, count: int) -> None:
        self.size += count
        self._budget.used += count

    def clear(self) -> None:
        """Forget all output; whoever asks for it later is told that it is gone."""
        self.dropped += len(self._events)
        self._events.clear()
        self._grow(-self.size)

    def after(self, number: int) -> list[OutputEvent]:
        """The events kept that are newer than `number`, oldest first."""
        newer: list[OutputEvent] = []
        for event in reversed(self._events):
            if event.number <= number:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def lags(self, number: int, limit: int) -> bool:
        """Whether more than `limit` bytes are newer than event `number`."""
        size = 0
        for event in reversed(self._events):
            if event.number <= number:
                return False
            size += len(event.data) + EVENT_COST
            if size > limit:
                return True
        return False

    def text(self, stream: str) -> str:
        """What is kept of one stream; bytes that are no UTF-8 are replaced."""
        data = b"".join(event.data for event in self._events if event.stream == stream)
        return data.decode("utf-8", "replace")
