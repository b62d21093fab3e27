"""Network of a workspace (spec 4.4)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import Services, ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.config import NetworkConfig, Text
from bastide.services.network import NetworkView

router = APIRouter(tags=["Network"])


class OutboundAddress(BaseModel):
    """Body of POST /workspace/:id/network/ip."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ip: Annotated[Text, Field(max_length=100)] | None = Field(
        description="an address of GET /zone/mine; null: the server's own"
    )


@router.get("/workspace/{id}/network", summary="Get network")
async def get_network(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Address, policy, and the workspaces that may connect."""
    return _answer(services, await services.network.get(caller, id))


@router.patch("/workspace/{id}/network", summary="Change network")
async def change_network(
    id: str,  # noqa: A002 - the wire's name
    body: NetworkConfig,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Only what is given changes, at once; a list replaces the list."""
    return _answer(services, await services.network.change(caller, id, body))


@router.post("/workspace/{id}/network/ip", summary="Choose the outbound address")
async def choose_address(
    id: str,  # noqa: A002 - the wire's name
    body: OutboundAddress,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """New connections leave as this address; those that are there keep theirs."""
    return _answer(services, await services.network.leave_as(caller, id, body.ip or None))


@router.get("/workspace/{id}/network/blocked", summary="What was refused")
async def blocked(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Connections and names that the workspace was refused lately, newest first."""
    return success(**shapes.blocked(await services.network.blocked(caller, id)))


@router.get("/zone/mine", summary="Outbound addresses")
async def outbound_addresses(caller: CallerOf, services: ServicesOf) -> Envelope:
    """The addresses workspaces of this account can leave as; their country is not known."""
    found = await services.network.free_addresses(caller)
    return success(proxies=[{"ip": ip, "country_code": ""} for ip in found])


def _answer(services: Services, view: NetworkView) -> Envelope:
    gateway = str(next(services.settings.network.subnet.hosts()))
    return success(**shapes.network(view.row, view.callers, gateway))
