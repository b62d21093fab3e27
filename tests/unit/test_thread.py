"""Threads that are waited for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bastide.thread import in_thread


async def test_a_cancelled_caller_goes_on_when_the_thread_has_ended() -> None:
    """However often it is cancelled: whoever comes next would meet the thread."""
    begun, go, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(60)
        ended.set()

    async def caller() -> None:
        try:
            await in_thread(work)
        finally:
            assert ended.is_set()

    task = asyncio.create_task(caller())
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_it_gives_or_raises() -> None:
    """Both reach the caller."""
    assert await in_thread(int, "7") == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
