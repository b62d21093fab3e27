"""Network of a workspace: what the API answers, the calls, and both clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from bastide.client._call import Call, part
from bastide.client._models import Model
from bastide.client._session import AsyncSession, Session


class PrivateLink(Model):
    """A workspace that may connect."""

    workspace_id: str
    name: str = ""
    ip: str | None = None


class Network(Model):
    """Address and policy of a workspace.

    `hidden_links` counts linked callers that these credentials do not see.
    """

    ip: str | None = None
    gateway: str | None = None
    public_access: bool = False
    allow_internet: bool = True
    ingress: list[str] = Field(default_factory=list)
    ingress_ports: list[int] = Field(default_factory=list)
    egress: list[str] = Field(default_factory=list)
    egress_ports: list[int] = Field(default_factory=list)
    outbound_ip: str | None = None
    bandwidth_mbps: float | None = None
    private_links: list[PrivateLink] = Field(default_factory=list)
    hidden_links: int = 0
    in_force: bool = True


class BlockedEntry(Model):
    """Something a workspace was refused, `time` being the last one."""

    time: datetime
    first_time: datetime
    protocol: str
    destination: str
    port: int | None = None
    name: str | None = None
    reason: str = ""
    count: int = 1


class BlockedLog(Model):
    """What a workspace was refused lately, newest first, and packets in all since it started."""

    blocked: list[BlockedEntry] = Field(default_factory=list)
    packets: int = 0


def _get(workspace: str) -> Call[Network]:
    return Call("GET", _path(workspace), Network.model_validate)


def _update(workspace: str, changes: Mapping[str, Any]) -> Call[Network]:
    return Call("PATCH", _path(workspace), Network.model_validate, json=dict(changes))


def _use_ip(workspace: str, ip: str | None) -> Call[Network]:
    return Call("POST", f"{_path(workspace)}/ip", Network.model_validate, json={"ip": ip})


def _blocked(workspace: str) -> Call[BlockedLog]:
    return Call("GET", f"{_path(workspace)}/blocked", BlockedLog.model_validate)


def _addresses() -> Call[list[str]]:
    return Call("GET", "/zone/mine", lambda body: [str(one["ip"]) for one in body["proxies"]])


def _path(workspace: str) -> str:
    return f"/workspace/{part(workspace)}/network"


class Networks:
    """What workspaces reach, and what reaches them. Each is named by id or slug."""

    def __init__(self, api: Session) -> None:
        self._api = api

    def get(self, workspace: str) -> Network:
        """Address and policy."""
        return self._api.send(_get(workspace))

    def update(self, workspace: str, **changes: Any) -> Network:
        """Change fields of the policy, at once; a list replaces the list."""
        return self._api.send(_update(workspace, changes))

    def use_ip(self, workspace: str, ip: str | None) -> Network:
        """Leave as an address of `addresses()`; None: as the server."""
        return self._api.send(_use_ip(workspace, ip))

    def addresses(self) -> list[str]:
        """The outbound addresses this account can use."""
        return self._api.send(_addresses())

    def blocked(self, workspace: str) -> BlockedLog:
        """What the workspace was refused lately."""
        return self._api.send(_blocked(workspace))


class AsyncNetworks:
    """The same for asyncio."""

    def __init__(self, api: AsyncSession) -> None:
        self._api = api

    async def get(self, workspace: str) -> Network:
        """Address and policy."""
        return await self._api.send(_get(workspace))

    async def update(self, workspace: str, **changes: Any) -> Network:
        """Change fields of the policy, at once; a list replaces the list."""
        return await self._api.send(_update(workspace, changes))

    async def use_ip(self, workspace: str, ip: str | None) -> Network:
        """Leave as an address of `addresses()`; None: as the server."""
        return await self._api.send(_use_ip(workspace, ip))

    async def addresses(self) -> list[str]:
        """The outbound addresses this account can use."""
        return await self._api.send(_addresses())

    async def blocked(self, workspace: str) -> BlockedLog:
        """What the workspace was refused lately."""
        return await self._api.send(_blocked(workspace))
