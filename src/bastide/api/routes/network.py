"""Network of a workspace (spec 4.4)."""

from __future__ import annotations

from fastapi import APIRouter

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import Services, ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.config import NetworkConfig
from bastide.services.views import WorkspaceView

router = APIRouter(tags=["Network"])


@router.get("/workspace/{id}/network", summary="Get network")
async def get_network(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Address and policy."""
    return _answer(services, await services.network.get(caller, id))


@router.patch("/workspace/{id}/network", summary="Change network")
async def change_network(
    id: str,  # noqa: A002 - the wire's name
    body: NetworkConfig,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Only what is given changes, at once; `ingress_ports` replaces the list."""
    return _answer(services, await services.network.change(caller, id, body))


def _answer(services: Services, view: WorkspaceView) -> Envelope:
    gateway = str(next(services.settings.network.subnet.hosts()))
    return success(**shapes.network(view.row, gateway))
