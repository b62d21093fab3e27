"""Creation: from a row to a machine whose agent answers."""

from __future__ import annotations

from contextlib import suppress

from bastide.domain.archive import ArchiveState
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, UnknownMachine
from bastide.pipelines.archiving import archive_in
from bastide.pipelines.boot import boot_resting, make, make_and_boot, reason
from bastide.pipelines.job import Done, Job
from bastide.pipelines.owner import Owner
from bastide.pipelines.pipeline import Pipeline
from bastide.pipelines.tools import Tools
from bastide.pipelines.transfer import followed
from bastide.services.backups import Backups, Progress, Target
from bastide.services.machines import observed, resting_spec_of, spec_of, unobserved


class Provisioning(Pipeline):
    """Makes and boots new workspaces. One that fails leaves its record with the error only."""

    kinds = (OperationKind.PROVISION,)
    # Images are pulled within: a slow registry must not hold up the creations of others.
    concurrency = 96

    def __init__(self, tools: Tools, owner: Owner, backups: Backups) -> None:
        super().__init__(tools, owner)
        self._backups = backups

    async def work(self, job: Job) -> Done:
        """Create and start."""
        archive = job.operation.params.get("archive")
        if archive is not None:
            await self._fill(job, str(archive))
        status = await make_and_boot(self.tools, job, spec_of(job.row, self.tools.pids))
        return Done("Ready", observed(status))

    async def _fill(self, job: Job, archive_id: str) -> None:
        """Put the files of an archive on the new disk, before any command of the owner runs.

        Repeated from the beginning: whatever an earlier pass has booted is stopped first.
        """
        archive = await archive_in(self.tools, archive_id, ArchiveState.READY)
        engine = self.tools.engine
        with suppress(UnknownMachine):
            await engine.stop(job.row.id, 0)
        spec = resting_spec_of(job.row, self.tools.pids)
        await make(self.tools, job, spec)
        control = await boot_resting(self.tools, spec)
        told = f"Archive {archive.workspace_id}:{archive.version}"
        job.show(Phase.INITIALIZING, f"{told}: taking up its files")
        progress = Progress(archive.tar_bytes)
        putting = self._backups.put(Target(control, job.row.image), archive, progress)
        await followed(job, putting, progress, told)
        await engine.stop(job.row.id, self.tools.grace)

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """Leave nothing in the engine; what cannot be reached now the sweep removes."""
        with suppress(EngineError):
            await self.tools.engine.delete(job.row.id)
        return Done(
            f"The creation failed: {error.message}", unobserved(), reason(error, "CREATE_FAILED")
        )
