"""Work in a thread that has ended when its caller goes on, even one that was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
    """What `work` gives. A thread cannot be cancelled, so its end is waited for all the same.

    Only then may descriptors be closed that it uses, or a turn be given on that it has.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    finally:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
