"""Access to the runtime server of a workspace (spec 4.14, runtime 2).

Every path exists under its older name too.
"""

from __future__ import annotations

from fastapi import APIRouter

from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.instant import iso
from bastide.services.runtime_access import Access, Token

router = APIRouter(tags=["Runtime API Access"])
_paths = APIRouter()


@_paths.get("", summary="Server status")
async def get_access(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Whether the server is enabled, and whether it runs."""
    return _access(await services.runtime_access.status(caller, id))


@_paths.post("/enable", summary="Enable server")
async def enable(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Open it and give a gateway token; an open one is not restarted."""
    return _token(await services.runtime_access.enable(caller, id))


@_paths.post("/disable", summary="Disable server")
async def disable(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Close it; sessions and connections end."""
    return _access(await services.runtime_access.disable(caller, id))


@_paths.get("/token", summary="Get gateway token")
async def get_token(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """A token with a fresh lifetime of an hour."""
    return _token(await services.runtime_access.token(caller, id))


@_paths.post("/token", summary="Rotate token")
async def rotate_token(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Every earlier token of the workspace stops working."""
    return _token(await services.runtime_access.rotate(caller, id))


@_paths.get("/token/raw", summary="Raw token and address")
async def get_raw_token(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """For direct calls from a linked workspace."""
    raw = await services.runtime_access.raw(caller, id)
    return success(token=raw.token, ip=raw.ip, port=raw.port)


@_paths.post("/reconnect", summary="Reconnect")
async def reconnect(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Tell machine and gateway everything anew; answers like status."""
    return _access(await services.runtime_access.reconnect(caller, id))


@_paths.post("/workspace", summary="Workspace token")
async def workspace_token(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """A gateway token good for 30 days."""
    return _token(await services.runtime_access.token(caller, id, "workspace"))


def _access(access: Access) -> Envelope:
    return success(enabled=access.enabled, running=access.running)


def _token(token: Token) -> Envelope:
    return success(enabled=True, token=token.token, expires_at=iso(token.expires_at))


router.include_router(_paths, prefix="/workspace/{id}/runtime-api-access")
router.include_router(_paths, prefix="/workspace/{id}/internal-api-access", include_in_schema=False)
