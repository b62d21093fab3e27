"""Lifecycle and machine of a workspace (spec 4.3, 4.10)."""

from __future__ import annotations

from fastapi import APIRouter

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success

router = APIRouter(tags=["Lifecycle & Power"])


@router.get("/workspace/{id}/lifecycle", summary="Get lifecycle status")
async def get_lifecycle(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Mode, status, restart policy and restarts, uptime in seconds."""
    return success(**shapes.lifecycle(await services.lifecycle.get(caller, id)))


@router.get("/workspace/{id}/info", summary="Get machine information")
async def get_info(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Tier, state and timings of the last boot in milliseconds."""
    shown = shapes.machine(await services.lifecycle.machine(caller, id))
    return success(info=shown, **shown)
