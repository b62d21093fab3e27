"""Other sizes for a running machine: processor and memory at once, a larger disk by a new boot."""

from __future__ import annotations

from typing import Any

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MEMORY_IN_USE, MachineState
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable, Unsupported
from bastide.pipelines.boot import boot, reason, seen
from bastide.pipelines.pipeline import Done, Job, Pipeline
from bastide.services.machines import observed, resources_of


class Resizing(Pipeline):
    """Puts the sizes of the row in force. Refused ones are taken back."""

    kinds = (OperationKind.RESIZE,)

    async def work(self, job: Job) -> Done:
        """Hot where it can be done, else stop and boot."""
        if not job.operation.params.get("relaunch"):
            job.show(Phase.PREPARING, "Changing the sizes")
            try:
                sizes = resources_of(job.row, self.tools.pids)
                return Done("Resized", observed(await self.tools.engine.resize(job.row.id, sizes)))
            except Unsupported:
                pass  # this tier needs another boot
        if not await self.booted_since(job):
            job.show(Phase.PREPARING, "Stopping the machine")
            await self.tools.engine.stop(job.row.id, self.tools.grace)
        return Done("Resized", observed(await boot(self.tools, job)))

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """The old sizes hold again, but for a disk, which may have grown already."""
        values: dict[str, Any] = dict(job.operation.params.get("before", {}))
        if not isinstance(error, EngineUnavailable):
            values |= await seen(self.tools.engine, job.row.id)
            if values["observed_state"] not in {MachineState.RUNNING, MachineState.PAUSED}:
                values["desired_state"] = DesiredState.STOPPED
        code = error.code if error.code == MEMORY_IN_USE else "RESIZE_FAILED"
        return Done(f"The resize failed: {error.message}", values, reason(error, code))
