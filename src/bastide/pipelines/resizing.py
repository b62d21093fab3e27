"""Other sizes for a running machine: processor and memory at once, a larger disk by a new boot."""

from __future__ import annotations

from typing import Any

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MEMORY_IN_USE, UP, MachineState, MachineStatus
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine, Unsupported
from bastide.pipelines.boot import boot, reason, seen
from bastide.pipelines.job import Done, Job
from bastide.pipelines.pipeline import Pipeline
from bastide.services.machines import observed, resources_of


class Resizing(Pipeline):
    """Puts the sizes of the row in force. Refused ones are taken back."""

    kinds = (OperationKind.RESIZE,)

    async def work(self, job: Job) -> Done:
        """Hot where it can be done, else stop and boot; the operation's `relaunched` tells which.

        Told by the boot's id: an earlier pass may have died after it had booted the machine.
        """
        status = None if job.operation.params.get("relaunch") else await self._hot(job)
        if status is None:
            if not await self.booted_since(job):
                job.show(Phase.PREPARING, "Stopping the machine")
                await self.tools.engine.stop(job.row.id, self.tools.grace)
            status = await boot(self.tools, job)
        relaunched = status.boot_id != job.operation.params.get("boot_id")
        told = {**job.operation.params, "relaunched": relaunched}
        return Done("Resized", observed(status), params=told)

    async def _hot(self, job: Job) -> MachineStatus | None:
        """The machine with its new sizes; None: it takes another boot.

        So it is where the tier cannot do it at all, where less memory than is in use would be
        left, and where an earlier pass has ended the machine already.
        """
        engine = self.tools.engine
        if job.operation.attempts > 1 and await self._ended(job):
            return None
        job.show(Phase.PREPARING, "Changing the sizes")
        try:
            return await engine.resize(job.row.id, resources_of(job.row, self.tools.pids))
        except Unsupported:
            return None
        except EngineError as error:
            if error.code != MEMORY_IN_USE:
                raise
            return None

    async def _ended(self, job: Job) -> bool:
        try:
            status = await self.tools.engine.status(job.row.id)
        except UnknownMachine:
            return True
        return status.state is not MachineState.RUNNING

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """The old sizes hold again, but for a disk, which may have grown already."""
        values: dict[str, Any] = dict(job.operation.params.get("before", {}))
        if not isinstance(error, EngineUnavailable):
            values |= await seen(self.tools.engine, job.row.id)
            if values["observed_state"] not in UP:
                values["desired_state"] = DesiredState.STOPPED
        return Done(f"The resize failed: {error.message}", values, reason(error, "RESIZE_FAILED"))
