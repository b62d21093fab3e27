"""A transfer of files between a workspace and where archives are kept, while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from bastide.domain.operation import Phase
from bastide.engine.contract import EngineError
from bastide.pipelines.job import Job
from bastide.services.backups import Progress

LOOK = 1.0
"""Seconds between looks whether a transfer is still wanted, and signs of progress."""
STALL, STEP = 300.0, 1024 * 1024
"""Seconds in which at least so many bytes must pass: nobody holds a place by a trickle."""
LONGEST = 6 * 3600.0
"""Seconds one transfer may take in all."""
_T = TypeVar("_T")


async def followed(
    job: Job,
    work: Coroutine[Any, Any, _T],
    progress: Progress,
    what: str,
    check: Callable[[Job], Awaitable[object]] | None = None,
) -> _T:
    """The result of `work`; meanwhile people are told how far it is.

    Raises:
        EngineError: it gets nowhere, or `check` found that it is not wanted any more.
    """
    task = asyncio.create_task(work)
    clock = asyncio.get_running_loop().time
    began = moved = clock()
    passed = 0
    try:
        while True:
            done, _ = await asyncio.wait((task,), timeout=LOOK)
            if done:
                return task.result()
            job.show(Phase.INITIALIZING, f"{what}: {progress}")
            if check is not None:
                await check(job)
            if progress.tar + progress.stored >= passed + STEP:
                moved, passed = clock(), progress.tar + progress.stored
            if clock() - moved > STALL or clock() - began > LONGEST:
                raise EngineError("VM_UNAVAILABLE", f"it gets nowhere ({progress})")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
