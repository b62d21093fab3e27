"""Lifecycle, leases and machine of a workspace (spec 4.1, 4.3, 4.10)."""

from __future__ import annotations

from fastapi import APIRouter

from bastide.api import shapes, ssh_shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import Services, ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.lease import Idle, MakePermanent, MakeTemporary, Ping, UpdateTtl
from bastide.services.caller import Caller
from bastide.services.ssh import SshView
from bastide.services.views import WorkspaceView

router = APIRouter(tags=["Lifecycle & Power"])


@router.get("/workspace/{id}/lifecycle", summary="Get lifecycle status")
async def get_lifecycle(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Mode, status, restart policy and restarts, uptime in seconds."""
    return success(**shapes.lifecycle(await services.lifecycle.get(caller, id)))


@router.get("/workspace/{id}/operations/{operation}", summary="Get an operation")
async def get_operation(
    id: str,  # noqa: A002 - the wire's name
    operation: str,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """How far a long operation is, or how it ended."""
    shown = shapes.operation(await services.lifecycle.operation(caller, id, operation))
    return success(operation=shown)


@router.post("/workspace/{id}/lifecycle/permanent", summary="Make permanent")
async def make_permanent(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: MakePermanent | None = None,
) -> Envelope:
    """End the lease and set the restart policy, without starting or stopping anything."""
    policy = (body or MakePermanent()).restart_policy
    return await _lifecycle(
        services, caller, await services.leases.make_permanent(caller, id, policy)
    )


@router.post("/workspace/{id}/lifecycle/temporary", summary="Make temporary")
async def make_temporary(
    id: str,  # noqa: A002 - the wire's name
    body: MakeTemporary,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Give it a lease from now on, without starting or stopping anything."""
    view = await services.leases.make_temporary(caller, id, body)
    return await _lifecycle(services, caller, view)


@router.put("/workspace/{id}/lifecycle/ttl", summary="Update TTL")
async def update_ttl(
    id: str,  # noqa: A002 - the wire's name
    body: UpdateTtl,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Another length, from now, or another action of the lease in force."""
    view = await services.leases.update_ttl(caller, id, body)
    return await _lifecycle(services, caller, view)


@router.put("/workspace/{id}/lifecycle/idle", summary="Set automatic sleep")
async def set_idle(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: Idle | None = None,
) -> Envelope:
    """Off is all there is yet: anything else is refused with a sentence."""
    del body
    view = await services.workspaces.get(caller, id)
    return success(id=view.row.id, idle=None)


@router.post("/workspace/{id}/ping", summary="Ping")
async def ping(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: Ping | None = None,
) -> Envelope:
    """Renew the lease from now; of a permanent workspace there is nothing to renew."""
    view = await services.leases.ping(caller, id, body or Ping())
    return success(id=view.row.id, status=view.condition.status.value, **shapes.lease(view.row))


@router.delete("/workspace/{id}/lifecycle", summary="Destroy the machine")
async def destroy(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Machine and disk go, the record stays; a later start begins anew from the image."""
    view = await services.power.destroy(caller, id)
    shown = shapes.workspace(view)
    return success(id=view.row.id, status=shown["status"], workspace=shown)


@router.get("/workspace/{id}/details", summary="Get details")
async def get_details(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Workspace, token, use, access and lifecycle in one answer."""
    found = await services.details.get(caller, id)
    ssh = ssh_shapes.status(SshView.of(found.lifecycle.workspace.row), services.settings)
    return success(**shapes.details(found), ssh=ssh)


@router.get("/workspace/{id}/info", summary="Get machine information")
async def get_info(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Tier, state and timings of the last boot in milliseconds."""
    shown = shapes.machine(await services.lifecycle.machine(caller, id))
    return success(info=shown, **shown)


async def _lifecycle(services: Services, caller: Caller, view: WorkspaceView) -> Envelope:
    """The flat fields, and the workspace."""
    found = await services.lifecycle.get(caller, view.row.id)
    return success(**shapes.lifecycle(found), workspace=shapes.workspace(found.workspace))
