"""Workspaces (spec 4.1)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.creation import CreateWorkspace, UpdateWorkspace
from bastide.domain.lifecycle import Mode
from bastide.domain.workspace import Status

router = APIRouter(tags=["Workspaces"])
Page = Annotated[int, Query(ge=1, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/workspace", status_code=201, summary="Create a workspace")
async def create_workspace(
    caller: CallerOf, services: ServicesOf, body: CreateWorkspace | None = None
) -> Envelope:
    """Answers at once, with `provisioning` to follow, unless `wait_ready` is true."""
    view, new = await services.workspaces.create(caller, body or CreateWorkspace())
    return success(201 if new else 200, workspace=shapes.workspace(view))


@router.get("/workspace", summary="List workspaces")
async def list_workspaces(
    caller: CallerOf,
    services: ServicesOf,
    *,
    page: Page = 1,
    limit: Limit = 20,
    status: Status | None = None,
    mode: Mode | None = None,
    namespace: str | None = None,
) -> Envelope:
    """Newest first, as far as the credential reaches."""
    views, total = await services.workspaces.page(
        caller, page=page, limit=limit, status=status, mode=mode, namespace=namespace
    )
    shown = [shapes.workspace(view) for view in views]
    return success(workspaces=shown, total=total, page=page, limit=limit)


@router.get("/workspace/{id}", summary="Get a workspace")
async def get_workspace(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """By id or slug."""
    return success(workspace=shapes.workspace(await services.workspaces.get(caller, id)))


@router.put("/workspace/{id}", summary="Update a workspace")
async def update_workspace(
    id: str,  # noqa: A002 - the wire's name
    body: UpdateWorkspace,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Only what is given changes; null clears slug and logo; `config` is merged."""
    view = await services.workspaces.update(caller, id, body)
    return success(workspace=shapes.workspace(view))


@router.delete("/workspace/{id}", summary="Delete a workspace")
async def delete_workspace(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """From any state; goes on in the background."""
    view = await services.workspaces.delete(caller, id)
    return success(accepted=True, id=view.row.id)


@router.post("/workspace/{id}/provisioning/retry", summary="Retry a failed creation")
async def retry_provisioning(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """With the same id and configuration."""
    return success(workspace=shapes.workspace(await services.power.retry(caller, id)))
