"""Modes and leases of workspaces: permanent, temporary, renewal (spec 4.3, 5.1, 5.3).

All of it is configuration and takes effect at once; no machine is started or stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bastide.domain.errors import Conflict
from bastide.domain.lease import Lease, MakeTemporary, Ping, TtlAction, UpdateTtl
from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.restart import RestartPolicy
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.views import WorkspaceView, view_of
from bastide.services.workspaces import WorkspaceService
from bastide.store.clock import Time
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces

_ATTEMPTS = 8
_Change = Callable[[WorkspaceView, datetime], dict[str, Any]]


class LeaseService:
    """Changes of mode and lease, each guarded by the lease's version."""

    def __init__(
        self, database: Database, catalogue: Catalogue, workspaces: WorkspaceService, time: Time
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._workspaces = workspaces
        self._time = time

    async def make_permanent(
        self, caller: Caller, reference: str, policy: RestartPolicy
    ) -> WorkspaceView:
        """End the lease without consequences and set the restart policy.

        Raises:
            Conflict: the workspace is being deleted.
        """

        def change(view: WorkspaceView, at: datetime) -> dict[str, Any]:
            del at
            return {
                "mode": Mode.PERMANENT,
                "config": {**view.row.config, "restart_policy": policy.value},
                "ttl": None,
                "ttl_action": None,
                "remove_on_exit": False,
                "lease_expires_at": None,
            }

        return await self._change(caller, reference, change)

    async def make_temporary(
        self, caller: Caller, reference: str, body: MakeTemporary
    ) -> WorkspaceView:
        """Give it a lease that begins now.

        Raises:
            Conflict: the workspace is being deleted.
            FeatureUnavailable: its machine cannot be paused.
        """
        await self._catalogue.check_action(body.ttl_action, "ttl_action")
        lease = body.lease

        def change(view: WorkspaceView, at: datetime) -> dict[str, Any]:
            return {
                "mode": Mode.TEMPORARY,
                "config": {**view.row.config, "restart_policy": RestartPolicy.NO.value},
                "ttl": lease.ttl,
                "ttl_action": lease.action,
                "remove_on_exit": lease.remove_on_exit,
                "lease_expires_at": lease.ends(at),
            }

        return await self._change(caller, reference, change)

    async def update_ttl(self, caller: Caller, reference: str, body: UpdateTtl) -> WorkspaceView:
        """Another length, which begins now, or another action for the lease in force.

        Raises:
            Conflict: it has no lease, or the lease has ended.
            FeatureUnavailable: its machine cannot be paused.
        """
        await self._catalogue.check_action(body.ttl_action, "ttl_action")

        def change(view: WorkspaceView, at: datetime) -> dict[str, Any]:
            lease = _lease_of(view)
            if lease is None:
                raise Conflict(
                    "The workspace is permanent and has no ttl. Make it temporary with POST "
                    "/workspace/:id/lifecycle/temporary.",
                    state=view.condition.status.value,
                    details={"mode": view.row.mode.value},
                )
            values: dict[str, Any] = {"ttl_action": body.ttl_action or lease.action}
            if body.ttl is not None:
                values |= {"ttl": body.ttl, "lease_expires_at": Lease(body.ttl).ends(at)}
            return values

        return await self._change(caller, reference, change)

    async def ping(self, caller: Caller, reference: str, body: Ping) -> WorkspaceView:
        """Renew the lease from now; a permanent workspace has none, and nothing happens.

        Raises:
            Conflict: the lease has ended, or the workspace is being deleted.
        """

        def change(view: WorkspaceView, at: datetime) -> dict[str, Any]:
            lease = _lease_of(view)
            return {} if lease is None else {"lease_expires_at": lease.ends(at, body.ttl_seconds)}

        return await self._change(caller, reference, change)

    async def _change(self, caller: Caller, reference: str, change: _Change) -> WorkspaceView:
        """Apply `change`, unless the lease moved meanwhile: then look again."""
        for _ in range(_ATTEMPTS):
            known = await self._workspaces.get(caller, reference)
            async with self._database.write() as session:
                workspaces = Workspaces(session)
                row = caller.require(await workspaces.get(known.row.id))
                view = await view_of(session, row)
                if row.desired_state is DesiredState.DELETED:
                    raise Conflict(
                        "The workspace is being deleted"
                        f"{' because its lease has ended' if _over(row) else ''}.",
                        state="deleting",
                    )
                values = change(view, await self._time(session))
                if not values:
                    return view
                # `config` is written as a whole: nothing else of the row may have changed either.
                version = {"lease_version": row.lease_version, "updated_at": row.updated_at}
                if await workspaces.update(
                    row.id, {**values, "lease_version": row.lease_version + 1}, expected=version
                ):
                    if values.get("config", {}).get("restart_policy") == RestartPolicy.NO:
                        # A restart that waits for its back-off finds out that it is called off.
                        await Operations(session).hurry(row.id)
                    return await self._view(caller, row.id, workspaces, view)
        raise Conflict("The lease of the workspace is changing too fast; try again.")

    async def _view(
        self, caller: Caller, workspace_id: str, workspaces: Workspaces, view: WorkspaceView
    ) -> WorkspaceView:
        row = caller.require(await workspaces.get(workspace_id))
        return WorkspaceView(row, view.newest, view.provision)


def _lease_of(view: WorkspaceView) -> Lease | None:
    """The lease in force; None: the workspace is permanent.

    Raises:
        Conflict: it has ended, and what it was to bring about has begun or is done.
    """
    row = view.row
    if row.ttl is None:
        return None
    if _over(row):
        raise Conflict(
            f"The lease of the workspace has ended; it is {view.condition.status.value} now. "
            "Starting or resuming it begins a new lease, and so does POST "
            "/workspace/:id/lifecycle/temporary.",
            state=view.condition.status.value,
            details={"ttl": row.ttl, "ttl_action": row.ttl_action},
        )
    return Lease(row.ttl, row.ttl_action or TtlAction.STOP, row.remove_on_exit)


def _over(row: Workspace) -> bool:
    """Whether a lease has ended. One of a workspace still in creation has not begun."""
    return row.ttl is not None and row.lease_expires_at is None and row.lease_version > 0
