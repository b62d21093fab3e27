"""Work that several wait for: done once, seen by all, ended when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from bastide.node.errors import Interrupted

MOST_OFTEN = 0.4
"""Seconds between two lines of progress."""
PULSE = 10.0
"""Seconds after which the last line is told again, so that listeners know it goes on."""
Tell = Callable[[str], None]


class Work:
    """One piece of work and the last line of its progress."""

    def __init__(self, make: Callable[[Tell], Awaitable[str]]) -> None:
        self._changed = asyncio.Event()
        self._message = "waiting for its turn"
        self._waiting = 0
        self._task = asyncio.ensure_future(make(self._tell))
        # whoever waits is told; when everybody has left, nobody asks how it ended
        self._task.add_done_callback(self._ended)

    @property
    def done(self) -> bool:
        """Whether it has ended, or is being ended."""
        return self._task.done() or self._task.cancelling() > 0

    async def follow(self) -> AsyncIterator[str]:
        """Lines of progress until it has ended well, the last one again after each `PULSE`.

        Raises:
            NodeError: it failed.
        """
        self._waiting += 1
        told = None
        try:
            while not self._task.done():
                self._changed.clear()
                if self._message != told:
                    told = self._message
                    yield told
                    await asyncio.wait((self._task,), timeout=MOST_OFTEN)
                    continue
                waiting = asyncio.ensure_future(self._changed.wait())
                try:
                    done, _ = await asyncio.wait(
                        (self._task, waiting), timeout=PULSE, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    waiting.cancel()
                if not done:
                    told = None
        finally:
            self._waiting -= 1
            if self._waiting == 0 and not self._task.done():
                self._task.cancel()
        try:
            self._task.result()
        except asyncio.CancelledError:
            raise Interrupted("the work on the image was given up; try again") from None

    async def result(self) -> str:
        """What it made; only after `follow` has ended."""
        return await self._task

    async def stop(self) -> None:
        """End it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task

    def _tell(self, message: str) -> None:
        self._message = message
        self._changed.set()

    def _ended(self, task: asyncio.Future[str]) -> None:
        if not task.cancelled():
            task.exception()
