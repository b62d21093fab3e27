"""Wait for what is to come, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEADLINE = 30.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`; the test fails when it does not within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.02)
