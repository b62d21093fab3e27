"""The sweep: at the start and every minute, differences no event tells of are put right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import UP, MachineState
from bastide.domain.operation import OperationKind
from bastide.engine.contract import EngineError
from bastide.pipelines.tools import Tools
from bastide.services.reach import PENDING
from bastide.services.views import WorkspaceView, view_of, views_of
from bastide.store.errors import Duplicate
from bastide.store.operations import Operations
from bastide.store.workspaces import Filter, Workspaces

log = structlog.get_logger(__name__)

EVERY = 60.0
AFTER_A_FAILURE = 5.0
KEPT = timedelta(days=7)
"""How long finished operations are kept."""
MOST_PRUNED = 1000
"""Operations removed in one sweep: the write lock is not held long."""

_Due = Callable[[WorkspaceView], bool]


@dataclass(frozen=True)
class Swept:
    """What one sweep found: machines removed, operations begun, entries at the edge."""

    orphans: int
    begun: int
    published: int


class Sweep:
    """Brings engine and edge in line with the rows."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                swept = await self.sweep()
            except EngineError as error:
                log.info("sweep.postponed", error=error.message)
                await asyncio.sleep(AFTER_A_FAILURE)
                continue
            except Exception:
                log.exception("sweep.failed")
                await asyncio.sleep(AFTER_A_FAILURE)
                continue
            if swept.orphans or swept.begun:
                log.info("sweep.done", orphans=swept.orphans, begun=swept.begun)
            await asyncio.sleep(EVERY)

    async def sweep(self) -> Swept:
        """One pass.

        The edge comes first: it must be right even while the engine is away. Only machines of
        workspaces that were deleted, or never came to life, are removed.

        Raises:
            EngineUnavailable: the engine's part could not be done.
        """
        published = await self._tools.gateway.resync()
        asked = now()
        machines = await self._tools.engine.poll()
        # Rows are read after the poll: a machine is made only after its row is committed.
        async with self._tools.database.read() as session:
            rows = await Workspaces(session).page(Filter())
            views = {view.row.id: view for view in await views_of(session, rows)}
            strange = [status.id for status in machines if status.id not in views]
            deleted = await Workspaces(session).deleted_among(strange)
        orphans = begun = 0
        for status in machines:
            view = views.get(status.id)
            if view is None and status.id not in deleted:
                # No machine is made before its row, so this is another database's: its disk may
                # be all that somebody has left.
                log.error("sweep.unknown_machine", workspace_id=status.id)
            elif view is None:
                log.warning("sweep.orphan", workspace_id=status.id, state=status.state.value)
                await self._tools.engine.delete(status.id)
                orphans += 1
            elif _stillborn(view):  # by an operation, so that a retry and this cannot both begin
                begun += await self._begin(view, OperationKind.DESTROY, _stillborn)
            # What was written since may be news of the machine that the poll does not have yet.
            elif view.row.updated_at < asked and (missing := _missing(status.state, view)):
                begun += await self._begin(view, *missing)
        for view in views.values():
            if _undeleted(view):
                begun += await self._begin(view, OperationKind.DELETE, _undeleted)
        await self._catch_up([view for view in views.values() if _behind(view)])
        async with self._tools.database.write() as session:
            await Operations(session).prune(now() - KEPT, MOST_PRUNED)
        return Swept(orphans, begun, published)

    async def _catch_up(self, views: list[WorkspaceView]) -> None:
        """Put in force what a crash or a silent agent has left undone; a few at a time."""
        slots = asyncio.Semaphore(8)

        async def one(workspace_id: str) -> None:
            async with slots:
                try:
                    await self._tools.reach.put_in_force(workspace_id)
                except EngineError as error:
                    log.warning("sweep.behind", workspace_id=workspace_id, error=error.message)

        async with asyncio.TaskGroup() as tasks:
            for view in views:
                tasks.create_task(one(view.row.id))

    async def _begin(self, seen: WorkspaceView, kind: OperationKind, due: _Due) -> bool:
        """Queue what is missing, if it still is."""
        try:
            async with self._tools.database.write() as session:
                row = await Workspaces(session).get(seen.row.id)
                if row is None or not due(await view_of(session, row)):
                    return False
                operation = await self._tools.queue.insert(
                    session, row.id, kind, {"cause": "sweep"}
                )
        except Duplicate:
            return False
        self._tools.queue.announce(operation)
        return True


def _stillborn(view: WorkspaceView) -> bool:
    """Whether its creation failed, and nobody retries it."""
    return view.doing is None and view.creation_failed


def _unwanted(view: WorkspaceView) -> bool:
    """Whether it runs although nobody wants it to."""
    return view.doing is None and view.row.desired_state is DesiredState.STOPPED


def _to_pause(view: WorkspaceView) -> bool:
    """Whether it runs although its owner has paused it."""
    return view.doing is None and view.row.desired_state is DesiredState.PAUSED


def _to_resume(view: WorkspaceView) -> bool:
    """Whether it should run, if it is frozen."""
    return view.doing is None and view.row.desired_state is DesiredState.RUNNING


def _missing(state: MachineState, view: WorkspaceView) -> tuple[OperationKind, _Due] | None:
    """What brings a machine to what its row wants."""
    if state in UP and _unwanted(view):
        return OperationKind.STOP, _unwanted
    if state is MachineState.RUNNING and _to_pause(view):
        return OperationKind.PAUSE, _to_pause
    if state is MachineState.PAUSED and _to_resume(view):
        return OperationKind.RESUME, _to_resume
    return None


def _undeleted(view: WorkspaceView) -> bool:
    """Whether it should be gone and nobody works on that."""
    return view.doing is None and view.row.desired_state is DesiredState.DELETED


def _behind(view: WorkspaceView) -> bool:
    """Whether its machine runs with older access than its row says."""
    return view.doing is None and view.row.ready and bool(view.row.network.get(PENDING))
