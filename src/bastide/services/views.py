"""A workspace with the operations that decide what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.machine import MachineState
from bastide.domain.operation import UNFINISHED, OperationKind, OperationState
from bastide.domain.workspace import Condition
from bastide.services.caller import Caller
from bastide.store.operations import Operations
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """The row, its newest operation, and its last provisioning."""

    row: Workspace
    newest: Operation | None
    provision: Operation | None

    @property
    def doing(self) -> Operation | None:
        """The unfinished operation."""
        if self.newest is not None and self.newest.state in UNFINISHED:
            return self.newest
        return None

    @property
    def creation_failed(self) -> bool:
        """Whether it never came to life."""
        return self.provision is not None and self.provision.state is OperationState.FAILED

    @property
    def condition(self) -> Condition:
        """What the rules decide on."""
        doing = self.doing
        return Condition(
            desired=self.row.desired_state,
            observed=MachineState(self.row.observed_state),
            doing=doing.kind if doing else None,
            automatic=doing is not None and "cause" in doing.params,
            creation_failed=self.creation_failed,
        )


async def views_of(session: AsyncSession, rows: Sequence[Workspace]) -> list[WorkspaceView]:
    """The views of some workspaces, in their order."""
    operations = Operations(session)
    ids = [row.id for row in rows]
    newest = await operations.latest(ids)
    later = [
        key for key, operation in newest.items() if operation.kind is not OperationKind.PROVISION
    ]
    provisions = {
        **newest,
        **dict.fromkeys(later),
        **await operations.latest(later, OperationKind.PROVISION),
    }
    return [WorkspaceView(row, newest.get(row.id), provisions.get(row.id)) for row in rows]


async def view_of(session: AsyncSession, row: Workspace) -> WorkspaceView:
    """The view of one workspace."""
    return WorkspaceView(row, *await Operations(session).telling(row.id))


async def find_view(session: AsyncSession, caller: Caller, reference: str) -> WorkspaceView:
    """The view of one workspace, by id or slug.

    Raises:
        NotFound, Forbidden: there is none that the caller reaches.
    """
    row, newest, creation = await Workspaces(session).told(caller.account_id, reference)
    return WorkspaceView(caller.require(row), newest, creation)
