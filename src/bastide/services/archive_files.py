"""The end of archives: their files go first, then their rows."""

from __future__ import annotations

from datetime import timedelta

import structlog

from bastide.depot.contract import Depot, DepotError
from bastide.domain.archive import ArchiveState
from bastide.domain.instant import now
from bastide.domain.operation import UNFINISHED
from bastide.store.archives import Archives
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Archive

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=30)
"""How long the end of an operation is left to the pass that worked it."""
KEPT = timedelta(days=7)
"""How long failed archives are shown."""
_MOST = 100


class ArchiveFiles:
    """Removes files and rows that are not wanted, whoever left them."""

    def __init__(self, database: Database, depot: Depot) -> None:
        self._database = database
        self._depot = depot

    async def drop(self, archive: Archive) -> None:
        """Delete the file of an archive that is being removed, and forget it.

        Raises:
            DepotError: the file may still be there; `sweep` tries again.
        """
        await self._depot.remove(archive.file)
        async with self._database.write() as session:
            await Archives(session).remove(archive.id)

    async def settle(self, archive_id: str) -> None:
        """Drop an archive whose making was given up for something else; never raises."""
        async with self._database.write() as session:
            archives = Archives(session)
            archive = await archives.get(archive_id)
            if archive is None or archive.state not in {
                ArchiveState.CREATING,
                ArchiveState.REMOVING,
            }:
                return
            operation = await Operations(session).get(archive.operation_id or "")
            if operation is not None and operation.state in UNFINISHED:
                return  # another pass has it
            removing = {"state": ArchiveState.REMOVING}
            await archives.update(archive.id, removing, state=ArchiveState.CREATING)
        try:
            await self.drop(archive)
        except DepotError as error:
            log.warning("archive.not_removed", archive=archive.id, error=str(error))

    async def sweep(self) -> int:
        """Settle what crashes and a silent depot have left; how many that was."""
        before = now() - PATIENCE
        async with self._database.read() as session:
            left = await Archives(session).left(before, _MOST)
        for archive in left:
            await self.settle(archive.id)
        async with self._database.write() as session:
            await Archives(session).prune_failed(now() - KEPT)
        return len(left)
