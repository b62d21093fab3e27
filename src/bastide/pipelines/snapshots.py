"""Snapshots of memory and disk: taken, and brought back (spec 4.8)."""

from __future__ import annotations

from typing import Any

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineState, MachineStatus, SnapshotAfter
from bastide.domain.operation import OperationKind, Phase
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.boot import reason, seen
from bastide.pipelines.job import Done, Job
from bastide.pipelines.pipeline import Pipeline
from bastide.services.machines import desired_of, observed, spec_of
from bastide.services.snapshots import unchanged

_TOLD = frozenset({"conflict", "no_snapshot", "unsupported"})
"""Refusals of the engine that are the caller's to know as what they are."""


class Snapshots(Pipeline):
    """Captures machines, and puts what was captured in the place of what is there."""

    kinds = (OperationKind.SNAPSHOT, OperationKind.RESTORE)
    concurrency = 4

    async def work(self, job: Job) -> Done:
        """Do what the operation says."""
        if job.operation.kind is OperationKind.RESTORE:
            return Done("Ready", observed(await self._restore(job)))
        return Done("The snapshot is taken", _after(await self._take(job)))

    async def _take(self, job: Job) -> MachineStatus:
        """Capture it, unless an earlier pass has done so and ended it."""
        # One that an earlier version queued may not say.
        after = SnapshotAfter(job.operation.params.get("after") or unchanged(job.row))
        if job.operation.attempts > 1:
            status = await self.tools.engine.status(job.row.id)
            taken = status.snapshot
            if taken is not None and taken.at >= job.operation.created_at:
                return status
        if after in {SnapshotAfter.STOP, SnapshotAfter.PAUSED}:
            # The edge is told first: a request to frozen processes would hang.
            await self.tools.gateway.hold(job.row)
        job.show(Phase.PREPARING, "Capturing memory and disk")
        return await self.tools.engine.snapshot(job.row.id, after)

    async def _restore(self, job: Job) -> MachineStatus:
        """Bring it back, unless an earlier pass has."""
        if job.operation.attempts > 1:
            status = await self._status(job.row.id)
            if (
                status is not None
                and status.state is MachineState.RUNNING
                and status.boot_id != job.operation.params.get("boot_id")
            ):
                return status
        job.show(Phase.STARTING, "Bringing memory and disk back")
        return await self.tools.engine.restore(spec_of(job.row, self.tools.pids))

    async def give_up(self, job: Job, error: EngineError) -> Done:
        """Nothing was changed by a failed snapshot; a failed restore leaves it stopped."""
        values: dict[str, Any] = {}
        if not isinstance(error, EngineUnavailable):
            values = await seen(self.tools.engine, job.row.id)
            if job.operation.kind is OperationKind.RESTORE:
                values["desired_state"] = desired_of(MachineState(values["observed_state"]))
        kind = job.operation.kind
        code = error.code if error.code in _TOLD else f"{kind.value.upper()}_FAILED"
        return Done(f"The {kind} failed: {error.message}", values, reason(error, code))

    async def _status(self, workspace_id: str) -> MachineStatus | None:
        try:
            return await self.tools.engine.status(workspace_id)
        except UnknownMachine:
            return None


def _after(status: MachineStatus) -> dict[str, Any]:
    """The columns once a snapshot is taken: what the machine is now is what was asked for."""
    desired = desired_of(status.state)
    stopped = {"user_requested_stop": True} if desired is DesiredState.STOPPED else {}
    return {**observed(status), "desired_state": desired, **stopped}
