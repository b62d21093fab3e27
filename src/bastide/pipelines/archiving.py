"""Archives: the files of a workspace are stored, and put back (spec 4.8).

Of a workspace that runs, the agent gives and takes the files while it goes on. A stopped one is
booted for it with nothing but its agent and no network, and stopped again: whoever reads or writes
a tree that is not to be trusted does it inside.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from bastide.domain.archive import ArchiveState
from bastide.domain.instant import now
from bastide.domain.machine import ControlAddress, MachineState
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable
from bastide.pipelines.boot import boot_resting, reason, seen
from bastide.pipelines.job import Done, Job
from bastide.pipelines.owner import Owner
from bastide.pipelines.pipeline import Pipeline
from bastide.pipelines.tools import Tools
from bastide.pipelines.transfer import followed
from bastide.services.archive_files import ArchiveFiles
from bastide.services.backups import Backups, Progress, Target
from bastide.services.machines import observed, resting_spec_of
from bastide.store.archives import Archives
from bastide.store.tables import Archive, Operation

log = structlog.get_logger(__name__)

_TOLD = frozenset(
    {
        "archive_gone",
        "archive_paths",
        "archive_dest",
        "archive_unfit",
        "archive_too_large",
        "archive_cancelled",
        "workspace_full",
        "storage",
        "conflict",
    }
)
"""Codes that are the caller's to know as what they are."""


class Archiving(Pipeline):
    """Stores archives and puts them back. One that fails leaves no file, and its row says why."""

    kinds = (OperationKind.ARCHIVE, OperationKind.UNPACK)
    concurrency = 8

    def __init__(self, tools: Tools, owner: Owner, backups: Backups, files: ArchiveFiles) -> None:
        super().__init__(tools, owner)
        self._backups = backups
        self._files = files

    async def work(self, job: Job) -> Done:
        """Do what the operation says."""
        archive = await self._archive(job)
        resting = bool(job.operation.params.get("resting"))
        control = await self._control(job, resting=resting)
        if job.operation.kind is OperationKind.ARCHIVE:
            done = await self._take(job, archive, control)
        else:
            done = await self._put(job, archive, control)
        if not resting:
            return done
        # The row says "stopped" all the while; only the state of the machine is new.
        job.show(Phase.PREPARING, "Stopping the machine")
        status = await self.tools.engine.stop(job.row.id, self.tools.grace)
        return replace(done, workspace=observed(status))

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """No file is left; a machine that was booted for it is stopped; the row says why."""
        values: dict[str, Any] = {}
        if job.operation.params.get("resting") and not isinstance(error, EngineUnavailable):
            with suppress(EngineError):
                await self.tools.engine.stop(job.row.id, self.tools.grace)
        if not isinstance(error, EngineUnavailable):
            values = await seen(self.tools.engine, job.row.id)
        kind = job.operation.kind
        code = error.code if error.code in _TOLD else f"{kind.value.upper()}_FAILED"
        problem = reason(error, code)
        done = Done(f"The {kind} failed: {error.message}", values, problem)
        if kind is not OperationKind.ARCHIVE:
            return done
        archive_id = str(job.operation.params["archive"])
        failed = {"state": ArchiveState.FAILED, "error": problem, "completed_at": now()}
        return replace(
            done,
            then=lambda session: Archives(session).update(
                archive_id, failed, state=ArchiveState.CREATING
            ),
        )

    async def _undo(self, operation: Operation) -> None:
        """Another took over, or the workspace is going: so does what was made of the archive."""
        await super()._undo(operation)
        if operation.kind is OperationKind.ARCHIVE:
            await self._files.settle(str(operation.params["archive"]))

    async def _archive(self, job: Job) -> Archive:
        """The row that the operation is about."""
        making = job.operation.kind is OperationKind.ARCHIVE
        wanted = ArchiveState.CREATING if making else ArchiveState.READY
        return await archive_in(self.tools, str(job.operation.params["archive"]), wanted)

    async def _control(self, job: Job, *, resting: bool) -> ControlAddress:
        """Where the agent of the machine answers; a stopped machine is booted for that."""
        if resting:
            job.show(Phase.STARTING, "Booting the machine without network")
            return await boot_resting(self.tools, resting_spec_of(job.row, self.tools.pids))
        status = await self.tools.engine.status(job.row.id)
        if status.state is not MachineState.RUNNING or status.control is None:
            raise EngineError("conflict", f"the workspace is {status.state.value} by now")
        return status.control

    async def _take(self, job: Job, archive: Archive, control: ControlAddress) -> Done:
        most = int(job.operation.params["most_bytes"])
        progress = Progress()
        taking = self._backups.take(control, archive, most, progress)
        told = f"Archiving version {archive.version}"
        # Deleting an archive that is being made gives it up.
        sealed = await followed(job, taking, progress, told, self._archive)
        ready = {
            "state": ArchiveState.READY,
            "size_bytes": sealed.size_bytes,
            "tar_bytes": sealed.tar_bytes,
            "sha256": sealed.sha256,
            "completed_at": now(),
        }
        return Done(
            "Archived",
            {},
            then=lambda session: Archives(session).update(
                archive.id, ready, state=ArchiveState.CREATING
            ),
        )

    async def _put(self, job: Job, archive: Archive, control: ControlAddress) -> Done:
        progress = Progress(archive.tar_bytes)
        target = Target(control, job.row.image, str(job.operation.params["dest"]))
        putting = self._backups.put(target, archive, progress)
        count = await followed(job, putting, progress, f"Restoring version {archive.version}")
        return Done(
            f"{count} files are restored", {}, params={**job.operation.params, "files": count}
        )


async def archive_in(tools: Tools, archive_id: str, wanted: ArchiveState) -> Archive:
    """The row of an archive that is being made (`wanted` is CREATING), or is stored (READY).

    Raises:
        EngineError: `archive_cancelled` or `archive_gone`: it was deleted.
    """
    async with tools.database.read() as session:
        archive = await Archives(session).get(archive_id)
    if archive is None or archive.state is not wanted:
        code = "archive_cancelled" if wanted is ArchiveState.CREATING else "archive_gone"
        raise EngineError(code, "the archive was deleted")
    return archive
