"""Wakes whoever waits in this process, so that nothing fast waits for a poll.

It only saves time: every waiter also looks at the database now and then, because the row may be
another process's, or the ring may have been lost with a process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Named bells; ringing wakes everyone who waits under that name now."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def ring(self, name: str) -> None:
        """Wake the waiters."""
        for event in self._waiting.get(name, ()):
            event.set()

    @contextmanager
    def listening(self, *names: str) -> Iterator[asyncio.Event]:
        """An event that every ring within the block sets; clear it before looking."""
        event = asyncio.Event()
        for name in names:
            self._waiting[name].add(event)
        try:
            yield event
        finally:
            for name in names:
                self._waiting[name].discard(event)
                if not self._waiting[name]:
                    del self._waiting[name]


async def heard(event: asyncio.Event, seconds: float) -> bool:
    """Wait for a ring, at most `seconds`; whether there was one."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
