"""Asks for long operations and waits for their end; pipelines do the work."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.errors import Conflict, VmUnavailable
from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.operation import ANEW, UNFINISHED, OperationKind, OperationState, Phase
from bastide.domain.workspace import Answer, judge
from bastide.services.bell import Bell
from bastide.services.failures import failure_of_operation
from bastide.services.views import WorkspaceView
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces

WAIT = 600.0
"""Seconds a request waits for its operation (spec 1.1)."""
LOOK_AGAIN = 0.5
"""Seconds between looks at an operation that another process may be working on."""

_LATE = 0.05
"""Seconds that an event of the engine may come after the answer to what brought it about."""

_MESSAGES = {
    OperationKind.PROVISION: "Waiting to be created",
    OperationKind.START: "Waiting to start",
    OperationKind.STOP: "Waiting to stop",
    OperationKind.RESTART: "Waiting to restart",
    OperationKind.REINSTALL: "Waiting to be reinstalled",
    OperationKind.PAUSE: "Waiting to be paused",
    OperationKind.RESUME: "Waiting to be resumed",
    OperationKind.RESIZE: "Waiting to be resized",
    OperationKind.SNAPSHOT: "Waiting for the snapshot",
    OperationKind.RESTORE: "Waiting to be restored",
    OperationKind.ARCHIVE: "Waiting to be archived",
    OperationKind.UNPACK: "Waiting to take up an archive",
    OperationKind.DESTROY: "Waiting to be destroyed",
    OperationKind.DELETE: "Waiting to be deleted",
}
WANTED = {
    OperationKind.PROVISION: DesiredState.RUNNING,
    OperationKind.START: DesiredState.RUNNING,
    OperationKind.RESTART: DesiredState.RUNNING,
    OperationKind.REINSTALL: DesiredState.RUNNING,
    OperationKind.PAUSE: DesiredState.PAUSED,
    OperationKind.RESUME: DesiredState.RUNNING,
    OperationKind.RESIZE: DesiredState.RUNNING,
    OperationKind.RESTORE: DesiredState.RUNNING,
    OperationKind.STOP: DesiredState.STOPPED,
    OperationKind.DESTROY: DesiredState.STOPPED,
    OperationKind.DELETE: DesiredState.DELETED,
}
_NOTHING_YET = frozenset({OperationKind.SNAPSHOT, OperationKind.ARCHIVE, OperationKind.UNPACK})
"""What they ask for afterwards is only true if they succeed, or is what it was."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An operation that has ended, and its workspace's row then; None: to be read."""

    operation: Operation
    row: Workspace | None = None


class Worker(Protocol):
    """A pipeline of this process: it can be handed an operation, which then is not looked for."""

    @property
    def lock(self) -> tuple[str, float] | None:
        """In whose name to lock an operation and for how many seconds; None: its hands are full."""

    def hand(self, operation: Operation, row: Workspace) -> None:
        """Work an operation that was inserted with this lock."""


class Queue:
    """The operations of all workspaces, as requests see them.

    `workers`: the pipelines of this process, by what they work.
    """

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self.bell = bell
        self.workers: dict[OperationKind, Worker] = {}
        self._working: Counter[str] = Counter()
        self._waiting: defaultdict[str, set[asyncio.Future[Ended]]] = defaultdict(set)

    @contextmanager
    def at_work(self, workspace_id: str) -> Iterator[None]:
        """While a pipeline of this process works on a workspace."""
        self._working[workspace_id] += 1
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(_LATE, self._rest, workspace_id)

    def _rest(self, workspace_id: str) -> None:
        self._working[workspace_id] -= 1
        if not self._working[workspace_id]:
            del self._working[workspace_id]

    def works_on(self, workspace_id: str) -> bool:
        """Whether that is so, or was a moment ago: what it did may be told after its answer."""
        return workspace_id in self._working

    async def request(
        self,
        session: AsyncSession,
        view: WorkspaceView,
        kind: OperationKind,
        *,
        force: bool = False,
        params: Mapping[str, Any] | None = None,
        hand: bool = False,
    ) -> Operation | None:
        """Queue `kind`, or give the one to wait for; None when there is nothing to do.

        Part of the caller's transaction; call `announce` after its commit. With `hand` a worker
        of this process has it at once, and `announce` must be told the row.

        Raises:
            Conflict: the state forbids it; the message says what to do.
        """
        verdict = judge(kind, view.condition, force=force)
        if verdict.answer is Answer.REFUSE:
            raise Conflict(
                f"This cannot be done now: {verdict.reason}.", state=view.condition.status.value
            )
        if verdict.answer is Answer.NOTHING:
            return None
        if verdict.answer is Answer.JOIN:
            return view.doing
        if verdict.supersede:
            await Operations(session).supersede(view.row.id, f"another request took over ({kind})")
        await Workspaces(session).put(view.row, _begun(kind))
        return await self.insert(
            session, view.row.id, kind, {"boot_id": view.row.boot_id, **(params or {})}, hand=hand
        )

    async def insert(
        self,
        session: AsyncSession,
        workspace_id: str,
        kind: OperationKind,
        params: Mapping[str, Any],
        run_after: datetime | None = None,
        *,
        hand: bool = False,
    ) -> Operation:
        """Queue an operation without asking the rules; `hand` as for `request`."""
        operation = Operation(
            workspace_id=workspace_id,
            kind=kind,
            phase=Phase.DELETING if kind is OperationKind.DELETE else Phase.QUEUED,
            message=_MESSAGES[kind],
            params=dict(params),
            run_after=run_after or now(),
        )
        worker = self.workers.get(kind) if hand else None
        lock = worker.lock if worker is not None else None
        if lock is not None:
            operation = Operations.taken(operation, *lock)
        return await Operations(session).insert(operation)

    def announce(
        self,
        operation: Operation | None,
        view: WorkspaceView | None = None,
        row: Workspace | None = None,
    ) -> None:
        """Wake the pipeline of an operation, and the work that it superseded.

        `row`: the workspace as the transaction has left it, to hand the operation to its worker.
        """
        if operation is None:
            return
        doing = view.doing if view is not None else None
        joined = doing is not None and doing.id == operation.id
        worker = self.workers.get(operation.kind)
        if row is not None and not joined and operation.lock_token and worker is not None:
            worker.hand(operation, row)
        else:
            self.bell.ring(operation.kind)
        if doing is not None and not joined:
            self.bell.ring(doing.id)

    def end(self, ended: Ended) -> None:
        """Hand the end of an operation to those who wait for it in this process."""
        for waiter in self._waiting.get(ended.operation.id, ()):
            if not waiter.done():
                waiter.set_result(ended)

    async def finished(self, operation_id: str, seconds: float) -> Ended:
        """The operation when it has ended, or as it is after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        waiter: asyncio.Future[Ended] = loop.create_future()
        self._waiting[operation_id].add(waiter)
        try:
            while True:
                left = deadline - loop.time()
                await asyncio.wait((waiter,), timeout=min(LOOK_AGAIN, left))
                if waiter.done():
                    return waiter.result()
                async with self._database.read() as session:
                    operation = await Operations(session).get(operation_id)
                if operation is None:
                    raise Conflict("The workspace was deleted.", state="deleted")
                # what this process has ended it tells itself, when the edge knows of it too
                over = operation.state not in UNFINISHED
                if (over and not self.works_on(operation.workspace_id)) or left <= 0:
                    return Ended(operation)
        finally:
            self._waiting[operation_id].discard(waiter)
            if not self._waiting[operation_id]:
                del self._waiting[operation_id]

    async def success(self, operation: Operation) -> Ended:
        """Return once the operation has done what was asked.

        Raises:
            Conflict, VmUnavailable: it failed, or is not done after ten minutes.
        """
        ended = await self.finished(operation.id, WAIT)
        if ended.operation.state in UNFINISHED:
            raise VmUnavailable(
                f"The {operation.kind} is still going on after {WAIT:.0f} seconds: "
                f"{ended.operation.message}. Look at the workspace's status until it is done."
            )
        if ended.operation.state is OperationState.FAILED:
            raise failure_of_operation(ended.operation)
        return ended


def _begun(kind: OperationKind) -> dict[str, Any]:
    """The columns that a person's request sets at once."""
    if kind in _NOTHING_YET:
        return {}
    values: dict[str, Any] = {"desired_state": WANTED[kind]}
    if kind is OperationKind.RESIZE:
        return values
    values["user_requested_stop"] = kind in {OperationKind.STOP, OperationKind.DESTROY}
    if kind is not OperationKind.START:
        values["ready"] = False
    if kind in ANEW:
        values["restarts"] = {}
    return values
