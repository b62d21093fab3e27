"""The lifecycle of a workspace, and what its machine is (spec 4.3, 4.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bastide.domain.errors import NotFound
from bastide.domain.identifiers import OPERATION, is_id
from bastide.domain.machine import Capabilities, MachineStatus
from bastide.domain.restart import Restarts
from bastide.engine.contract import Engine, UnknownMachine
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.failures import engine_failures
from bastide.services.views import WorkspaceView, views_of
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Operation
from bastide.store.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class LifecycleView:
    """A workspace, what its engine can do, and its restarts since somebody started it."""

    workspace: WorkspaceView
    capabilities: Capabilities
    restart_info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MachineView:
    """A workspace and its machine as the engine sees it now; None: it has none."""

    workspace: WorkspaceView
    capabilities: Capabilities
    machine: MachineStatus | None


class LifecycleService:
    """Reads; `LeaseService` and `PowerService` change."""

    def __init__(
        self, database: Database, engine: Engine, catalogue: Catalogue, workspaces: WorkspaceService
    ) -> None:
        self._database = database
        self._engine = engine
        self._catalogue = catalogue
        self._workspaces = workspaces

    async def get(self, caller: Caller, reference: str) -> LifecycleView:
        """Mode, restart policy and restarts.

        Raises:
            VmUnavailable: the engine is away and was never asked.
        """
        view = await self._workspaces.get(caller, reference)
        info = Restarts.model_validate(view.row.restarts).shown()
        return LifecycleView(view, await self._catalogue.capabilities(), info)

    async def operation(self, caller: Caller, reference: str, operation_id: str) -> Operation:
        """A long operation on a workspace, going on or ended within the last days.

        Raises:
            NotFound: there is none of that id.
        """
        async with self._database.read() as session:
            row = caller.require(await Workspaces(session).find(caller.account_id, reference))
            found = None
            if is_id(OPERATION, operation_id):
                found = await Operations(session).get(operation_id)
            if found is None or found.workspace_id != row.id:
                raise NotFound(
                    f"This workspace has no operation {operation_id[:64]!r}; those that ended are "
                    "forgotten after some days."
                )
            return found

    async def archived(
        self, caller: Caller, *, page: int, limit: int
    ) -> tuple[list[WorkspaceView], int]:
        """Workspaces whose machine was removed for good: destroyed, or removed by their lease.

        One page, the newest first, and how many there are in all.
        """
        which = caller.visible()
        async with self._database.read() as session:
            workspaces = Workspaces(session)
            rows = await workspaces.archived(which, limit=limit, offset=(page - 1) * limit)
            return await views_of(session, rows), await workspaces.count_archived(which)

    async def machine(self, caller: Caller, reference: str) -> MachineView:
        """The machine now.

        Raises:
            VmUnavailable: the engine cannot be asked.
        """
        view = await self._workspaces.get(caller, reference)
        with engine_failures():
            try:
                status = await self._engine.status(view.row.id)
            except UnknownMachine:
                status = None
        return MachineView(view, await self._catalogue.capabilities(), status)
