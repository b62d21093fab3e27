"""Blocking work away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a worker thread and wait for what it returns.

    Where no thread can be had (a fork bomb has used up the workspace's processes) it runs here:
    what ends the bomb must not need one.
    """
    done: Future[T] = Future()
    turn = Lock()

    def run() -> None:
        # A pool that fails to start a thread keeps the work for those it has: whoever comes first.
        if not turn.acquire(blocking=False) or not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  (it is told to who waits)
            done.set_exception(error)

    try:
        asyncio.get_running_loop().run_in_executor(None, run)
    except RuntimeError:
        run()
    return await asyncio.wrap_future(done)
