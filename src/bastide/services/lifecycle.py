"""The lifecycle of a workspace, and what its machine is (spec 4.3, 4.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bastide.domain.machine import Capabilities, MachineStatus
from bastide.domain.operation import OperationKind
from bastide.engine.contract import Engine, UnknownMachine
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.failures import engine_failures
from bastide.services.views import WorkspaceView
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.operations import Operations

_HISTORY = 10


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
    """Reads; what changes a lifecycle comes later."""

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
        async with self._database.read() as session:
            starts = await Operations(session).recent(
                view.row.id, OperationKind.START, _HISTORY + 1
            )
        restarts = []
        for operation in starts:
            if operation.params.get("cause") != "exit":
                break
            restarts.append({"count": operation.params["count"], **operation.params["exit"]})
        info: dict[str, Any] = {}
        if restarts:
            info = {"count": restarts[0]["count"], "history": restarts[:_HISTORY]}
        return LifecycleView(view, await self._catalogue.capabilities(), info)

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
