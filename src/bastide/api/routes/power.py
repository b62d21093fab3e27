"""Power (spec 4.2): synchronous calls."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, StrictBool

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.services.views import WorkspaceView

router = APIRouter(tags=["Lifecycle & Power"])


class StartBody(BaseModel):
    """Body of POST /workspace/:id/start."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    force: StrictBool = False


@router.post("/workspace/{id}/start", summary="Start a workspace")
async def start(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: StartBody | None = None,
) -> Envelope:
    """Answers when it is ready; one that runs already is fine."""
    force = body is not None and body.force
    return _answer(await services.power.start(caller, id, force=force))


@router.post("/workspace/{id}/stop", summary="Stop a workspace")
async def stop(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Answers when the machine has ended; the disk is kept; safe to repeat."""
    return _answer(await services.power.stop(caller, id))


@router.post("/workspace/{id}/restart", summary="Restart a workspace")
async def restart(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Stop, then start."""
    return _answer(await services.power.restart(caller, id))


@router.post("/workspace/{id}/reinstall", summary="Reinstall a workspace")
async def reinstall(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Remove machine and disk, and boot anew from the image; all files are lost."""
    return _answer(await services.power.reinstall(caller, id))


@router.post("/workspace/{id}/pause", summary="Pause a workspace")
async def pause(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Freeze all processes, memory and connections kept; no processor time is used; repeatable."""
    return _answer(await services.power.pause(caller, id))


@router.post("/workspace/{id}/resume", summary="Resume a workspace")
async def resume(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Let a paused workspace go on where it was; safe to repeat."""
    return _answer(await services.power.resume(caller, id))


def _answer(view: WorkspaceView) -> Envelope:
    shown = shapes.workspace(view)
    return success(id=view.row.id, status=shown["status"], workspace=shown)
