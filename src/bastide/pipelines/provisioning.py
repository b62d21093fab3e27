"""Creation: from a row to a machine whose agent answers."""

from __future__ import annotations

from contextlib import suppress

from bastide.domain.operation import OperationKind
from bastide.engine.contract import EngineError
from bastide.pipelines.boot import make_and_boot, reason
from bastide.pipelines.pipeline import Done, Job, Pipeline
from bastide.services.machines import observed, spec_of, unobserved


class Provisioning(Pipeline):
    """Makes and boots new workspaces. One that fails leaves its record with the error only."""

    kinds = (OperationKind.PROVISION,)
    concurrency = 32

    async def work(self, job: Job) -> Done:
        """Create and start."""
        status = await make_and_boot(self.tools, job, spec_of(job.row, self.tools.pids))
        return Done("Ready", observed(status))

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """Leave nothing in the engine; what cannot be reached now the sweep removes."""
        with suppress(EngineError):
            await self.tools.engine.delete(job.row.id)
        return Done(
            f"The creation failed: {error.message}", unobserved(), reason(error, "CREATE_FAILED")
        )
