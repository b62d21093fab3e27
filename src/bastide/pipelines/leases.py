"""Leases that have ended: their workspaces are stopped, paused or removed (spec 5.3).

The rows are all there is: whoever looks next acts on what ended while nobody looked. Renewal
and expiry are both guarded by the lease's version, so exactly one of them wins.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.lease import TtlAction
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import UP, MachineState
from bastide.domain.operation import OperationKind
from bastide.pipelines.tools import Tools
from bastide.services.queue import WANTED
from bastide.services.views import WorkspaceView, view_of
from bastide.store.errors import Duplicate
from bastide.store.tables import Operation
from bastide.store.workspaces import Workspaces

log = structlog.get_logger(__name__)

MOST = 100
"""Leases ended in one look."""


class Leases:
    """Looks for ended leases every `tools.poll` seconds."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("leases.failed")
            await asyncio.sleep(self._tools.poll)

    async def look(self) -> int:
        """End the leases that are over by the database's time; how many."""
        async with self._tools.database.read() as session:
            ids = await Workspaces(session).expired(await self._tools.time(session), MOST)
        return sum([await self.end(workspace_id) for workspace_id in ids])

    async def end(self, workspace_id: str) -> bool:
        """End one lease, unless it was renewed meanwhile or something is going on there."""
        try:
            async with self._tools.database.write() as session:
                row = await Workspaces(session).get(workspace_id)
                at = await self._tools.time(session)
                if row is None or row.lease_expires_at is None or row.lease_expires_at > at:
                    return False
                view = await view_of(session, row)
                if view.doing is not None:
                    return False
                ended, operation = await self._act(session, view)
        except Duplicate:  # an operation began at the same moment: look again when it is done
            return False
        self._tools.queue.announce(operation)
        return ended

    async def _act(
        self, session: AsyncSession, view: WorkspaceView
    ) -> tuple[bool, Operation | None]:
        """Close the lease and queue what its action says."""
        row = view.row
        kind = _due(view)
        desired = {} if kind is None else {"desired_state": WANTED[kind]}
        values = {"lease_expires_at": None, "lease_version": row.lease_version + 1, **desired}
        expected = {"lease_version": row.lease_version}
        if not await Workspaces(session).update(row.id, values, expected=expected):
            return False, None
        log.info(
            "lease.ended",
            workspace_id=row.id,
            action=row.ttl_action.value if row.ttl_action else None,
            operation=kind.value if kind else None,
        )
        if kind is None:
            return True, None
        params = {"cause": "ttl", "boot_id": row.boot_id}
        return True, await self._tools.queue.insert(session, row.id, kind, params)


def _due(view: WorkspaceView) -> OperationKind | None:
    """What is to be done at the end of the lease; None: it rests already."""
    row = view.row
    if row.desired_state is DesiredState.DELETED:
        return None
    up = row.observed_state in UP
    match row.ttl_action or TtlAction.STOP:
        case TtlAction.REMOVE:
            return OperationKind.DELETE
        case TtlAction.PAUSE:
            running = row.observed_state is MachineState.RUNNING
            return OperationKind.PAUSE if running else None
        case TtlAction.STOP:
            wanted = row.desired_state is not DesiredState.STOPPED
            return OperationKind.STOP if up or wanted else None
