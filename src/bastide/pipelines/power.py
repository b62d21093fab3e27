"""Start, stop, restart, pause, resume and destroy."""

from __future__ import annotations

from typing import Any

from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind, Phase
from bastide.domain.restart import RestartPolicy, Restarts
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.aftermath import OURS, policy_of
from bastide.pipelines.boot import boot, reason, seen
from bastide.pipelines.job import Done, Job
from bastide.pipelines.pipeline import Pipeline
from bastide.services.machines import desired_of, observed, unobserved


class Power(Pipeline):
    """Changes whether machines run. Disks are kept, but by `destroy`."""

    kinds = (
        OperationKind.START,
        OperationKind.STOP,
        OperationKind.RESTART,
        OperationKind.REINSTALL,
        OperationKind.PAUSE,
        OperationKind.RESUME,
        OperationKind.DESTROY,
    )

    async def work(self, job: Job) -> Done:
        """Do what the operation says."""
        match job.operation.kind:
            case OperationKind.STOP:
                return Done("Stopped", await self._stop(job))
            case OperationKind.PAUSE:
                return Done("Paused", await self._freeze(job))
            case OperationKind.RESUME:
                return Done("Ready", observed(await self.tools.engine.resume(job.row.id)))
            case OperationKind.DESTROY:
                return Done("Destroyed", await self._destroy(job))
            case OperationKind.RESTART if not await self.booted_since(job):
                await self._stop(job)
            case OperationKind.REINSTALL if not await self.booted_since(job):
                await self._remove(job)
            case OperationKind.START if _called_off(job):
                return Done("Not restarted: its restart policy is no", await self._rest(job))
        return Done("Ready", observed(await boot(self.tools, job)))

    def patient(self, job: Job) -> bool:
        """What Bastide began itself waits for the engine however long it takes."""
        return job.automatic or super().patient(job)

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """A machine that does not start stays stopped, with the reason; see what it is now."""
        kind = job.operation.kind
        values: dict[str, Any] = {}
        if not isinstance(error, EngineUnavailable):
            values = await seen(self.tools.engine, job.row.id)
        if kind in {OperationKind.START, OperationKind.RESTART, OperationKind.REINSTALL}:
            values["desired_state"] = DesiredState.STOPPED
        elif kind in {OperationKind.PAUSE, OperationKind.RESUME} and values:
            values["desired_state"] = desired_of(MachineState(values["observed_state"]))
        return Done(
            f"The {kind} failed: {error.message}",
            values,
            reason(error, f"{kind.value.upper()}_FAILED"),
        )

    async def _stop(self, job: Job) -> dict[str, Any]:
        """End the machine; a missing one is stopped already."""
        job.show(Phase.PREPARING, "Stopping the machine")
        try:
            return observed(await self.tools.engine.stop(job.row.id, self.tools.grace))
        except UnknownMachine:
            return unobserved()

    async def _freeze(self, job: Job) -> dict[str, Any]:
        """Freeze it. The edge is told first: a request to frozen processes would hang."""
        await self.tools.gateway.hold(job.row)
        return observed(await self.tools.engine.pause(job.row.id))

    async def _destroy(self, job: Job) -> dict[str, Any]:
        """Remove machine, disk and address; the record stays and is listed as archived."""
        await self._remove(job)
        if job.automatic:  # what a failed creation had left
            return unobserved()
        return {**unobserved(), "archived_at": now(), "archived_reason": "destroyed"}

    async def _remove(self, job: Job) -> None:
        """Remove machine, disk and address. The edge is told first: another may get the address."""
        job.show(Phase.PREPARING, "Destroying the machine")
        await self.tools.gateway.refresh(job.row.id)
        await self.tools.engine.delete(job.row.id, keep_snapshot=True)

    async def _rest(self, job: Job) -> dict[str, Any]:
        """The columns of a workspace whose restart is called off."""
        restarts = Restarts.model_validate(job.row.restarts).called_off()
        return {
            **await seen(self.tools.engine, job.row.id),
            "desired_state": DesiredState.STOPPED,
            "restarts": restarts.model_dump(mode="json"),
        }


def _called_off(job: Job) -> bool:
    """Whether it is a restart of ours that waited while its owner took the policy for it away."""
    ours = job.operation.params.get("cause") in OURS
    return ours and job.operation.attempts <= 1 and policy_of(job.row) is RestartPolicy.NO
