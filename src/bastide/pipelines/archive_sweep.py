"""The sweep of archives: every minute, what nobody works on any more is settled."""

from __future__ import annotations

import asyncio

import structlog

from bastide.services.archive_files import ArchiveFiles

log = structlog.get_logger(__name__)

EVERY = 60.0


class ArchiveSweep:
    """Settles archives that crashes left."""

    def __init__(self, files: ArchiveFiles) -> None:
        self._files = files

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                settled = await self._files.sweep()
            except Exception:
                log.exception("archives.sweep_failed")
            else:
                if settled:
                    log.info("archives.swept", settled=settled)
            await asyncio.sleep(EVERY)
