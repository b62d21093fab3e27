"""Snapshots of a workspace: its memory and disk of one moment (spec 4.8).

There is one at a time, the last; it stays through stop, start and destroy, and goes with the
workspace.
"""

from __future__ import annotations

from dataclasses import dataclass

from bastide.domain.errors import Conflict, NotFound, NotSupported
from bastide.domain.machine import MachineState, Snapshot, SnapshotAfter
from bastide.domain.operation import OperationKind
from bastide.engine.contract import Engine
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.failures import engine_failures
from bastide.services.power import PowerService
from bastide.services.views import WorkspaceView
from bastide.services.workspaces import WorkspaceService
from bastide.store.tables import Workspace


@dataclass(frozen=True, slots=True)
class Captured:
    """A workspace and its last snapshot."""

    workspace: WorkspaceView
    snapshot: Snapshot | None


class SnapshotService:
    """Synchronous calls: the answer comes when memory and disk are safe, or back."""

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        workspaces: WorkspaceService,
        power: PowerService,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._workspaces = workspaces
        self._power = power

    async def take(self, caller: Caller, reference: str, after: SnapshotAfter | None) -> Captured:
        """Capture it; `after` is what it is then, without it what it was.

        Raises:
            Conflict: it does not run, or something else is going on.
            NotSupported: this server cannot; the message says why.
            VmUnavailable: it failed, and everything is as it was.
        """
        known = await self._workspaces.get(caller, reference)
        await self._check_supported(known)
        if after is SnapshotAfter.STOP and known.row.remove_on_exit:
            raise Conflict(
                "The workspace is removed when it stops (remove_on_exit), and its snapshot with "
                "it: take the snapshot with another `after`, or change the lifecycle first.",
                state=known.condition.status.value,
            )
        if after is None:  # decided now: amid a snapshot that is tried again it may be frozen
            after = unchanged(known.row)
        params = {"after": after.value}
        kind = OperationKind.SNAPSHOT
        return await self._shown(await self._power.do(caller, reference, kind, params=params))

    async def restore(self, caller: Caller, reference: str) -> Captured:
        """Put the last snapshot in the place of what there is now, running or not.

        Raises:
            NotFound: there is none.
            Conflict: something else is going on.
            NotSupported: this server cannot; the message says why.
            RunningPoolReached: as many run as may.
            VmUnavailable: it did not come back; it is stopped, its disk as it was.
        """
        known = await self._workspaces.get(caller, reference)
        with engine_failures():
            snapshot = await self._engine.last_snapshot(known.row.id)
        if snapshot is None:
            raise NotFound(
                "The workspace has no snapshot; take one with POST /workspace/:id/snapshot while "
                "it runs."
            )
        await self._check_supported(known)
        return await self._shown(await self._power.do(caller, reference, OperationKind.RESTORE))

    async def _shown(self, view: WorkspaceView) -> Captured:
        with engine_failures():
            return Captured(view, await self._engine.last_snapshot(view.row.id))

    async def _check_supported(self, known: WorkspaceView) -> None:
        able = (await self._catalogue.capabilities()).tier_of(known.row.config.get("driver"))
        if not able.snapshot:
            raise NotSupported(
                "This server cannot take or restore snapshots: "
                f"{able.snapshot_unavailable_reason or 'it gave no reason'}."
            )


def unchanged(row: Workspace) -> SnapshotAfter:
    """What leaves a workspace as it is: frozen or running."""
    paused = row.observed_state == MachineState.PAUSED
    return SnapshotAfter.PAUSED if paused else SnapshotAfter.RESUME
