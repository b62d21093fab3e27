"""What an account has, may have, would pay and had (spec 4.1)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.api.routes.workspaces import Limit, Page

router = APIRouter(tags=["Workspaces"])
Size = Annotated[float | None, Query(ge=0, le=1e9, allow_inf_nan=False)]


@router.get("/workspace/quota", summary="Get quota")
async def get_quota(caller: CallerOf, services: ServicesOf) -> Envelope:
    """Limits and use of the account; a limit of null is none."""
    name, quota = await services.quota.get(caller)
    return success(**shapes.quota(name, quota))


@router.get("/workspace/estimate", summary="Estimate monthly credits")
async def get_estimate(
    caller: CallerOf,
    services: ServicesOf,
    *,
    cpu: Size = None,
    ram_mb: Size = None,
    disk_mb: Size = None,
) -> Envelope:
    """Credits a month of a workspace that always runs, by the operator's price table."""
    del caller
    found, prices = services.quota.estimate(cpus=cpu, memory_mb=ram_mb, disk_mb=disk_mb)
    return success(
        estimate={"min": found.least, "avg": found.usual, "max": found.most},
        period="month",
        prices=prices.model_dump(),
    )


@router.get("/workspace/archived", summary="List archived workspaces")
async def list_archived(
    caller: CallerOf, services: ServicesOf, *, page: Page = 1, limit: Limit = 20
) -> Envelope:
    """Destroyed ones, and those removed by their lease or on exit; newest first."""
    views, total = await services.lifecycle.archived(caller, page=page, limit=limit)
    shown = [shapes.archived(view) for view in views]
    return success(workspaces=shown, total=total, page=page, limit=limit)
