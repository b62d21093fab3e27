"""Start, stop and restart."""

from __future__ import annotations

from typing import Any

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.boot import boot, reason
from bastide.pipelines.pipeline import Done, Job, Pipeline
from bastide.services.machines import observed, unobserved


class Power(Pipeline):
    """Changes whether machines run; disks are kept."""

    kinds = (OperationKind.START, OperationKind.STOP, OperationKind.RESTART)

    async def work(self, job: Job) -> Done:
        """Do what the operation says."""
        if job.operation.kind is OperationKind.STOP:
            return Done("Stopped", await self._stop(job))
        if job.operation.kind is OperationKind.RESTART and not await self._restarted(job):
            await self._stop(job)
        return Done("Ready", observed(await boot(self.tools, job)))

    def patient(self, job: Job) -> bool:
        """What Bastide began itself waits for the engine however long it takes."""
        return job.automatic or super().patient(job)

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """A machine that does not start stays stopped, with the reason; see what it is now."""
        what = job.operation.kind.value
        seen: dict[str, Any] = {}
        if not isinstance(error, EngineUnavailable):
            seen = await self._seen(job.row.id)
        if job.operation.kind is not OperationKind.STOP:
            seen["desired_state"] = DesiredState.STOPPED
        return Done(
            f"The {what} failed: {error.message}", seen, reason(error, f"{what.upper()}_FAILED")
        )

    async def _stop(self, job: Job) -> dict[str, Any]:
        """End the machine; a missing one is stopped already."""
        job.show(Phase.PREPARING, "Stopping the machine")
        try:
            return observed(await self.tools.engine.stop(job.row.id, self.tools.grace))
        except UnknownMachine:
            return unobserved()

    async def _seen(self, workspace_id: str) -> dict[str, Any]:
        """What the machine is now."""
        try:
            return observed(await self.tools.engine.status(workspace_id))
        except UnknownMachine:
            return unobserved()

    async def _restarted(self, job: Job) -> bool:
        """Whether an earlier pass of this operation has booted it already."""
        before = job.operation.params.get("boot_id")
        if job.operation.attempts <= 1 or before is None:
            return False
        try:
            status = await self.tools.engine.status(job.row.id)
        except UnknownMachine:
            return False
        return status.state is MachineState.RUNNING and status.boot_id != before
