"""Power (spec 4.2), destroying, and another try of a failed creation (spec 4.1, 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bastide.domain.errors import Conflict
from bastide.domain.lifecycle import DesiredState
from bastide.domain.operation import ANEW, OperationKind
from bastide.domain.workspace import Answer, judge
from bastide.services.allowance import Allowance
from bastide.services.archive_records import hold_source
from bastide.services.caller import Caller
from bastide.services.queue import Queue
from bastide.services.views import WorkspaceView, find_view
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Operation

_ATTEMPTS = 4
_SOON_OVER = frozenset(
    {
        OperationKind.START,
        OperationKind.STOP,
        OperationKind.RESTART,
        OperationKind.PAUSE,
        OperationKind.RESUME,
    }
)
"""Asked for and waited for: with the host's power the machine is lost, and so is the request."""


class PowerService:
    """Synchronous power calls: the answer comes when the operation has ended."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        allowance: Allowance,
        workspaces: WorkspaceService,
    ) -> None:
        self._database = database
        self._queue = queue
        self._allowance = allowance
        self._workspaces = workspaces

    async def start(self, caller: Caller, reference: str, *, force: bool = False) -> WorkspaceView:
        """Run it; one that runs already is fine.

        Raises:
            Conflict: another operation is going on, or it was never created.
            RunningPoolReached: as many run as may.
            VmUnavailable: it did not start.
        """
        return await self.do(caller, reference, OperationKind.START, force=force)

    async def stop(self, caller: Caller, reference: str) -> WorkspaceView:
        """End it, its disk kept; one that is stopped already is fine.

        Raises:
            Conflict: another operation is going on.
            VmUnavailable: it could not be stopped.
        """
        return await self.do(caller, reference, OperationKind.STOP)

    async def restart(self, caller: Caller, reference: str) -> WorkspaceView:
        """Stop, then start; the errors of both."""
        return await self.do(caller, reference, OperationKind.RESTART)

    async def pause(self, caller: Caller, reference: str) -> WorkspaceView:
        """Freeze every process, memory kept; one that is paused already is fine.

        Raises:
            Conflict: it does not run, or another operation is going on.
            NotSupported: this engine cannot.
        """
        return await self.do(caller, reference, OperationKind.PAUSE)

    async def resume(self, caller: Caller, reference: str) -> WorkspaceView:
        """Let a paused one go on; one that runs is fine.

        Raises:
            Conflict: it is stopped, or another operation is going on.
        """
        return await self.do(caller, reference, OperationKind.RESUME)

    async def destroy(self, caller: Caller, reference: str) -> WorkspaceView:
        """Remove machine and disk and keep the record; a later start begins from the image.

        Raises:
            Conflict: it is being created or deleted.
        """
        return await self.do(caller, reference, OperationKind.DESTROY)

    async def reinstall(self, caller: Caller, reference: str) -> WorkspaceView:
        """Begin anew from the image: machine and disk go, the record and its snapshot stay.

        Raises:
            Conflict: another operation is going on, or it was never created.
            RunningPoolReached: as many run as may.
            VmUnavailable: it did not come up; a start tries it again.
        """
        return await self.do(caller, reference, OperationKind.REINSTALL)

    async def retry(self, caller: Caller, reference: str) -> WorkspaceView:
        """Try a failed creation again with the same id and configuration; answers at once.

        Raises:
            Conflict: the creation did not fail, or the archive it begins with was deleted.
        """
        view, _ = await self._begin(caller, reference, OperationKind.PROVISION, force=False)
        return await self._workspaces.get(caller, view.row.id)

    async def do(
        self,
        caller: Caller,
        reference: str,
        kind: OperationKind,
        *,
        force: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> WorkspaceView:
        """Begin or join an operation and wait for its end.

        Raises:
            Conflict: the workspace's state forbids it.
            RunningPoolReached: it would run, and as many run as may.
            BastideError: it failed, as `failure_of_operation` tells.
        """
        view, operation = await self._begin(caller, reference, kind, force=force, params=params)
        if operation is None:
            return view
        ended = await self._queue.success(operation)
        if ended.row is None:
            return await self._workspaces.get(caller, view.row.id)
        return WorkspaceView(ended.row, ended.operation, view.provision)

    async def _begin(
        self,
        caller: Caller,
        reference: str,
        kind: OperationKind,
        *,
        force: bool,
        params: Mapping[str, Any] | None = None,
    ) -> tuple[WorkspaceView, Operation | None]:
        """Queue the operation, in one transaction with the decision."""
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write(lasting=kind not in _SOON_OVER) as session:
                    view = await find_view(session, caller, reference)
                    row = view.row
                    more = (
                        kind in ANEW
                        and row.desired_state is DesiredState.STOPPED
                        and judge(kind, view.condition, force=force).answer is Answer.BEGIN
                    )
                    if more:
                        await self._allowance.count_start(session, row.account_id)
                    if kind is OperationKind.PROVISION and view.provision:
                        params = view.provision.params
                        if view.creation_failed and "archive" in params:
                            await hold_source(session, str(params["archive"]))
                    operation = await self._queue.request(
                        session,
                        view,
                        kind,
                        force=force,
                        params=params,
                        hand=True,
                    )
            except Duplicate:
                continue
            self._queue.announce(operation, view, row)
            return view, operation
        raise Conflict("The workspace is changing too fast; try again.")
