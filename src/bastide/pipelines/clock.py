"""Rings for operations that are due and that nobody in this process has announced.

Those are delayed ones (retries, restarts), other processes' rows, and rows whose lock ran out.
One cheap look serves all pipelines, which would otherwise take the write lock every second.
"""

from __future__ import annotations

import asyncio

import structlog

from bastide.pipelines.tools import Tools
from bastide.store.operations import Operations

log = structlog.get_logger(__name__)


class Clock:
    """Looks every `tools.poll` seconds."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with self._tools.database.read() as session:
                    kinds = await Operations(session).due()
            except Exception:
                log.exception("clock.failed")
                kinds = []
            for kind in kinds:
                self._tools.queue.bell.ring(kind)
            await asyncio.sleep(self._tools.poll)
