"""Snapshots (spec 4.8): synchronous calls."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.machine import SnapshotAfter
from bastide.services.snapshots import Captured

router = APIRouter(tags=["Snapshots"])


class SnapshotBody(BaseModel):
    """Body of POST /workspace/:id/snapshot."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    after: SnapshotAfter | None = None


@router.post("/workspace/{id}/snapshot", summary="Capture memory and disk")
async def snapshot(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: SnapshotBody | None = None,
) -> Envelope:
    """Takes the place of the last snapshot once it is complete; without `after` it goes on."""
    return _answer(await services.snapshots.take(caller, id, body.after if body else None))


@router.post("/workspace/{id}/restore", summary="Go back to the last snapshot")
async def restore(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Processes, memory, open files and disk are those of that moment; whatever was since goes."""
    return _answer(await services.snapshots.restore(caller, id))


def _answer(found: Captured) -> Envelope:
    shown = shapes.workspace(found.workspace)
    return success(
        id=found.workspace.row.id,
        status=shown["status"],
        snapshot=shapes.snapshot(found.snapshot),
        workspace=shown,
    )
