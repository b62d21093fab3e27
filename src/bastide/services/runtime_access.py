"""Access to the runtime server inside a workspace (spec 4.14, runtime 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bastide.domain.errors import Conflict, NotFound, RuntimeDisabled
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import RUNTIME_PORT, MachineState
from bastide.domain.network import MAX_ENTRIES
from bastide.gateway.tokens import Kind
from bastide.services.caller import Caller
from bastide.services.failures import engine_failures
from bastide.services.gateway import Gateway, new_raw_token
from bastide.services.reach import Reach, changed_network
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces

_ATTEMPTS = 8
_Change = Callable[[Workspace], tuple[dict[str, Any], dict[str, Any]]]
"""What becomes of a row: its columns, and what changes in `network`."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whether the server is wanted, and whether it answers."""

    enabled: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A gateway token and its end."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RawToken:
    """What the machine's own server accepts, and where it is."""

    token: str = field(repr=False)
    ip: str
    port: int


class RuntimeAccessService:
    """Enables, disables, and hands out tokens."""

    def __init__(
        self, database: Database, workspaces: WorkspaceService, reach: Reach, gateway: Gateway
    ) -> None:
        self._database = database
        self._workspaces = workspaces
        self._reach = reach
        self._gateway = gateway

    async def status(self, caller: Caller, reference: str) -> Access:
        """Enabled and running."""
        return _access((await self._workspaces.get(caller, reference)).row)

    async def enable(self, caller: Caller, reference: str) -> Token:
        """Open the server and mint a token; an open one is left as it is.

        Port 9990 is added to `ingress_ports`. `public_access` is set unless the owner has chosen
        it: no client sets it, and without it the gateway would refuse (docs/compatibility.md).

        Raises:
            Conflict: the workspace is being deleted, or has 50 open ports.
            VmUnavailable: stored, but the machine could not be told.
        """
        row = await self._row(caller, reference)
        _, network = _opened(row)
        done = row.runtime_enabled and all(row.network.get(k) == v for k, v in network.items())
        if not done or row.network.get("pending"):
            row = await self._change(caller, row.id, _opened)
        return self._token(row)

    async def disable(self, caller: Caller, reference: str) -> Access:
        """Close the server: sessions and connections end. Tokens work again once it is enabled."""
        row = await self._row(caller, reference)
        closed = await self._change(caller, row.id, lambda _: ({"runtime_enabled": False}, {}))
        return _access(closed)

    async def token(self, caller: Caller, reference: str, kind: Kind = "gateway") -> Token:
        """A fresh token: an hour, or 30 days for `workspace`.

        Raises:
            RuntimeDisabled: access is disabled.
        """
        return self._token(await self._enabled(caller, reference), kind)

    async def rotate(self, caller: Caller, reference: str) -> Token:
        """A new raw token and generation: every earlier token of the workspace is dead.

        Raises:
            RuntimeDisabled: access is disabled.
            VmUnavailable: old tokens are dead, but the machine could not be told the new one.
        """
        row = await self._enabled(caller, reference)
        values = {"raw_token": new_raw_token(), "generation": Workspace.generation + 1}
        return self._token(await self._change(caller, row.id, lambda _: (values, {})))

    async def raw(self, caller: Caller, reference: str) -> RawToken:
        """The raw token with address and port.

        Raises:
            RuntimeDisabled: access is disabled.
            NotFound: the machine has no address yet.
        """
        row = await self._enabled(caller, reference)
        if row.address is None or row.raw_token is None:
            raise NotFound("The workspace has no address yet. Wait until it is ready.")
        return RawToken(row.raw_token, row.address, RUNTIME_PORT)

    async def reconnect(self, caller: Caller, reference: str) -> Access:
        """Tell firewall, agent and edge everything anew.

        Raises:
            VmUnavailable: the machine cannot be reached.
        """
        row = await self._row(caller, reference)
        with engine_failures():
            fresh = await self._reach.put_in_force(row.id)
        return _access(fresh or row)

    async def _change(self, caller: Caller, workspace_id: str, change: _Change) -> Workspace:
        """Commit, then put in force.

        The row is read anew when somebody changed it between reading and writing.
        """
        for _ in range(_ATTEMPTS):
            async with self._database.write() as session:
                workspaces = Workspaces(session)
                row = _kept(caller.require(await workspaces.get(workspace_id)))
                values, network = change(row)
                columns = {**values, "network": changed_network(row, **network)}
                seen = {"updated_at": row.updated_at}
                if await workspaces.update(row.id, columns, expected=seen):
                    break
        else:
            raise Conflict("The workspace is changing too fast; try again.")
        with engine_failures():
            fresh = await self._reach.put_in_force(workspace_id)
        if fresh is None:
            raise NotFound("The workspace was deleted.")
        return fresh

    async def _row(self, caller: Caller, reference: str) -> Workspace:
        return _kept((await self._workspaces.get(caller, reference)).row)

    async def _enabled(self, caller: Caller, reference: str) -> Workspace:
        row = await self._row(caller, reference)
        if not row.runtime_enabled:
            raise RuntimeDisabled
        return row

    def _token(self, row: Workspace, kind: Kind = "gateway") -> Token:
        return Token(*self._gateway.token(row, kind))


def _opened(row: Workspace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What enabling makes of the row.

    Raises:
        Conflict: it has 50 open ports already.
    """
    ports = sorted({*row.network.get("ingress_ports", ()), RUNTIME_PORT})
    if len(ports) > MAX_ENTRIES:
        raise Conflict(
            f"The workspace has {MAX_ENTRIES} open ports already and port {RUNTIME_PORT} would "
            "be one more. Close one with PATCH /workspace/:id/network.",
            details={"field": "ingress_ports"},
        )
    network: dict[str, Any] = {"ingress_ports": ports}
    if row.network.get("public_access_set") is None:
        network["public_access"] = True
    return {"runtime_enabled": True, "raw_token": row.raw_token or new_raw_token()}, network


def _kept(row: Workspace) -> Workspace:
    """The row, unless it is on its way out."""
    if row.desired_state is DesiredState.DELETED:
        raise Conflict("The workspace is being deleted.", state="deleting")
    return row


def _access(row: Workspace) -> Access:
    up = row.ready and row.observed_state == MachineState.RUNNING
    return Access(row.runtime_enabled, row.runtime_enabled and up)
