"""Work in a thread that has ended when its caller goes on, even one that was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Given = TypeVarTuple("_Given")


async def in_thread(work: Callable[[*_Given], _T], *given: *_Given) -> _T:
    """What `work` gives for what it is given.

    A thread cannot be cancelled, so its end is waited for also when this is: only then may
    descriptors be closed that it uses, or a turn be given on that it has.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(task)
    finally:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
