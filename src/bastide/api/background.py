"""Tasks that run as long as the application does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger(__name__)


@asynccontextmanager
async def running(name: str, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` within the block and end it afterwards.

    Such work never ends by itself: if it does, the process asks itself to stop, so that the
    supervisor starts a whole one instead of half a one going on.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)
    try:
        yield
    finally:
        task.remove_done_callback(_ended)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _ended(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    log.critical("background.ended", task=task.get_name(), exc_info=error)
    os.kill(os.getpid(), signal.SIGTERM)
