"""Deletion, from whatever state; it is tried until it is done."""

from __future__ import annotations

from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable
from bastide.pipelines.job import Done, Job
from bastide.pipelines.pipeline import Pipeline


class Deletion(Pipeline):
    """Removes machines, disks and addresses, then the row."""

    kinds = (OperationKind.DELETE,)

    async def work(self, job: Job) -> Done:
        """Close edge and links first: nothing meets half a machine, nor a stranger in its place."""
        job.show(Phase.DELETING, "Deleting the workspace")
        await self.tools.gateway.forget(job.row.id)
        await self.tools.links.leave(job.row.id)
        await self.tools.engine.delete(job.row.id)
        return Done("Deleted")

    def patient(self, job: Job) -> bool:
        """A deletion is never given up."""
        del job
        return True

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """Nor when the engine refuses: try again later."""
        del job
        raise EngineUnavailable(f"the machine cannot be deleted yet: {error.message}") from error
