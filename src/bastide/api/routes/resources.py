"""Sizes of a workspace (spec 4.7)."""

from __future__ import annotations

from fastapi import APIRouter

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.resources import ChangeResources

router = APIRouter(tags=["Resources"])


@router.get("/workspace/{id}/resources", summary="Get resources")
async def get_resources(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Cores, MiB of memory and disk."""
    return success(resources=shapes.resources(await services.resources.get(caller, id)))


@router.put("/workspace/{id}/resources", summary="Change resources")
@router.patch("/workspace/{id}/resources", summary="Change resources")
async def change_resources(
    id: str,  # noqa: A002 - the wire's name
    body: ChangeResources,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Only what is given changes: now with `apply`, else from the next start.

    Processor and memory change while it runs where they can; a larger disk, less memory than is
    in use, and a microVM take another boot (`relaunched`).
    """
    done = await services.resources.change(caller, id, body)
    return success(
        updated=done.updated,
        relaunched=done.relaunched,
        resources=shapes.resources(done.view),
    )
