"""The sizes of a workspace, shown and changed (spec 4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bastide.domain.errors import Conflict, ValidationFailed
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import UP, MachineStatus
from bastide.domain.operation import OperationKind, OperationState
from bastide.domain.resources import ChangeResources
from bastide.domain.workspace import judge
from bastide.engine.contract import Engine, EngineError, UnknownMachine
from bastide.services.allowance import Allowance, Sizes
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.failures import engine_failures
from bastide.services.machines import MIB
from bastide.services.queue import WANTED, Queue
from bastide.services.views import WorkspaceView, view_of
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class Resized:
    """The workspace, the fields that changed, and whether its machine was booted anew."""

    view: WorkspaceView
    updated: dict[str, float]
    relaunched: bool


class ResourceService:
    """Changes sizes: saved for the next start, or put in force now."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        engine: Engine,
        *,
        catalogue: Catalogue,
        allowance: Allowance,
        workspaces: WorkspaceService,
    ) -> None:
        self._database = database
        self._queue = queue
        self._engine = engine
        self._catalogue = catalogue
        self._allowance = allowance
        self._workspaces = workspaces

    async def get(self, caller: Caller, reference: str) -> WorkspaceView:
        """The workspace whose sizes are shown."""
        return await self._workspaces.get(caller, reference)

    async def change(self, caller: Caller, reference: str, body: ChangeResources) -> Resized:
        """Set sizes; with `apply` a running machine has them when this returns.

        Processor and memory change while it runs, where its tier can; a larger disk, and less
        memory than is in use, take another boot.

        Raises:
            ValidationFailed: out of bounds, or a smaller disk.
            Conflict: something else is going on, or it is paused.
            VmUnavailable: the machine could not be changed.
        """
        known = await self._workspaces.get(caller, reference)
        image = await self._catalogue.resolve(known.row.image)
        machine = await self._machine(known.row.id)
        await self._refuse_smaller_disk(known.row, body)
        try:
            async with self._database.write() as session:
                row = caller.require(await Workspaces(session).get(known.row.id))
                view = await view_of(session, row)
                limits = await self._allowance.limits(session, row.account_id)
                before = Sizes(row.cpus, row.memory_mb, row.disk_mb)
                sizes = self._allowance.sizes(body.config, image, limits, before, place="")
                if sizes.disk_mb < row.disk_mb:
                    raise Conflict("The disk was made larger meanwhile; look at it and try again.")
                operation = None
                if body.apply and (machine is not None or _runs_or_will(view)):
                    if machine is None:
                        raise _going_up(view)
                    params = {
                        "relaunch": _disk_of(machine) < sizes.disk_mb,
                        "before": _columns(before, disk=False),
                        "boot_id": machine.boot_id,
                    }
                    operation = await self._queue.request(
                        session, view, OperationKind.RESIZE, params=params
                    )
                elif view.condition.deleting:
                    raise Conflict("The workspace is being deleted.", state="deleting")
                await Workspaces(session).update(row.id, _columns(sizes))
        except Duplicate:
            raise Conflict("The workspace is changing; try again.") from None
        relaunched = await self._done(operation)
        view = await self._workspaces.get(caller, known.row.id)
        return Resized(view, _differences(before, sizes), relaunched)

    async def _done(self, operation: Operation | None) -> bool:
        """Wait for the end; whether the machine was booted anew for it."""
        if operation is None:
            return False
        self._queue.announce(operation)
        ended = await self._queue.success(operation)
        return bool(ended.operation.params.get("relaunched"))

    async def _machine(self, workspace_id: str) -> MachineStatus | None:
        """The machine, if it is up."""
        with engine_failures():
            try:
                status = await self._engine.status(workspace_id)
            except UnknownMachine:
                return None
        return status if status.state in UP else None

    async def _refuse_smaller_disk(self, row: Workspace, body: ChangeResources) -> None:
        """A file system with data in it is not made smaller.

        Raises:
            ValidationFailed: with the size there is and what is used of it.
        """
        wanted = body.config.disk_mb
        if wanted is None or wanted >= row.disk_mb:
            return
        used = ""
        try:
            stats = await self._engine.stats(row.id)
            used = f", of which {stats.disk_bytes // MIB} MiB are used"
        except EngineError:
            pass  # the node is away: the size alone has to do
        raise ValidationFailed(
            "disk_size_mb",
            f"A disk can only grow: it has {row.disk_mb} MiB{used}. Ask for {row.disk_mb} MiB or "
            "more, or make a new workspace.",
            details={"current": row.disk_mb},
        )


def _runs_or_will(view: WorkspaceView) -> bool:
    """Whether it is up, or its sizes have been read for a boot that is going on."""
    if view.row.observed_state in UP:
        return True
    doing = view.doing
    if doing is None or doing.state is not OperationState.RUNNING:
        return False
    return WANTED.get(doing.kind) is DesiredState.RUNNING


def _going_up(view: WorkspaceView) -> Conflict:
    """What is told who would have sizes applied amid a boot."""
    verdict = judge(OperationKind.RESIZE, view.condition)
    reason = verdict.reason or "the machine just ended"
    return Conflict(
        f"The sizes cannot be applied now: {reason}. With apply: false they are saved for the "
        "next start.",
        state=view.condition.status.value,
    )


def _disk_of(machine: MachineStatus) -> int:
    return machine.resources.disk_mb if machine.resources is not None else 0


def _columns(sizes: Sizes, *, disk: bool = True) -> dict[str, Any]:
    columns = {"cpus": sizes.cpus, "memory_mb": sizes.memory_mb}
    return {**columns, "disk_mb": sizes.disk_mb} if disk else columns


def _differences(before: Sizes, after: Sizes) -> dict[str, float]:
    """The fields that changed, by their names on the wire."""
    pairs = {
        "cpus": (before.cpus, after.cpus),
        "memory_mb": (before.memory_mb, after.memory_mb),
        "disk_size_mb": (before.disk_mb, after.disk_mb),
    }
    return {name: new for name, (old, new) in pairs.items() if old != new}
