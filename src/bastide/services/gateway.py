"""What the edge may do with requests for a workspace, and the tokens that pass it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from ipaddress import IPv4Address
from typing import Protocol

import structlog

from bastide.bastion.doors import Door
from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import RUNTIME_PORT, MachineState
from bastide.edge.maps import GatewayEntry, GatewayEntryError, GatewayState
from bastide.gateway.tokens import GATEWAY_TTL, WORKSPACE_TTL, Kind, mint
from bastide.services.machines import ssh_of
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Filter, Workspaces

log = structlog.get_logger(__name__)


class EdgeMaps(Protocol):
    """The part of `bastide.edge.Edge` that the control plane changes."""

    async def publish(
        self,
        workspace_id: str,
        address: str | None,
        generation: int,
        state: GatewayState,
        raw_token: str | None,
    ) -> None:
        """Put a workspace's entry in force."""

    async def withdraw(self, workspace_id: str) -> None:
        """Forget a workspace."""

    async def sync(self, entries: Iterable[GatewayEntry]) -> None:
        """Put these entries in the place of all there are."""


def new_raw_token() -> str:
    """A fresh raw token: 64 hex digits (spec runtime 3.3)."""
    return secrets.token_hex(32)


def gateway_state(row: Workspace) -> GatewayState:
    """What the edge answers for this workspace (architecture, The edge)."""
    if not row.runtime_enabled:
        return "disabled"
    if not row.network.get("public_access", False):
        return "closed"
    if row.observed_state == MachineState.PAUSED:
        return "paused"
    up = row.ready and row.observed_state == MachineState.RUNNING
    return "open" if up and row.address and row.raw_token else "down"


def entry_of(row: Workspace) -> GatewayEntry:
    """The workspace's line in the gateway map."""
    return GatewayEntry(row.id, row.address, row.generation, gateway_state(row), row.raw_token)


class DoorKeeper(Protocol):
    """The part of `bastide.bastion.doors.Porter` that the control plane changes."""

    async def publish(self, door: Door) -> None:
        """Put a workspace's door in force."""

    async def withdraw(self, workspace: str) -> None:
        """Close a workspace's door."""

    async def sync(self, doors: Iterable[Door]) -> None:
        """Put these doors in the place of all there are."""


def door_of(row: Workspace) -> Door | None:
    """Who may pass the bastion to this workspace; None: nobody."""
    config = ssh_of(row)
    if config is None or not config.enabled or row.ssh_id is None:
        return None
    up = row.ready and row.observed_state == MachineState.RUNNING
    return Door(
        workspace=row.id,
        ssh_id=row.ssh_id,
        address=IPv4Address(row.address) if up and row.address else None,
        keys=tuple(key.fingerprint for key in config.keys),
        password=config.password.proof if config.password else None,
    )


class Gateway:
    """Keeps edge and bastion in step with the rows, and mints tokens.

    `changing` serialises "change the row, tell the edge" with `resync`, which reads all rows:
    without it a resync could put back what it had read before a change.
    """

    def __init__(self, database: Database, edge: EdgeMaps, key: str, bastion: DoorKeeper) -> None:
        self._database = database
        self._edge = edge
        self._bastion = bastion
        self._key = key
        self._order = asyncio.Lock()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold while a change is committed and published."""
        async with self._order:
            yield

    async def publish(self, row: Workspace, *, gone: bool = False) -> None:
        """Put the row's values in force at edge and bastion; call within `changing`."""
        if gone or row.deleted_at is not None or row.desired_state is DesiredState.DELETED:
            await self._withdraw(row.id)
            return
        door = door_of(row)
        try:
            if door is None:
                await self._bastion.withdraw(row.id)
            else:
                await self._bastion.publish(door)
        finally:  # a full disk must not keep open at the edge what was closed
            await self._tell_edge(row, gateway_state(row))

    async def hold(self, row: Workspace) -> None:
        """Let no new request through to a machine that is about to be frozen."""
        state: GatewayState = gateway_state(row)
        async with self._order:
            await self._tell_edge(row, state if state in {"closed", "disabled"} else "paused")

    async def _tell_edge(self, row: Workspace, state: GatewayState) -> None:
        """Publish a row; one that cannot be in the map (another subnet's) is withdrawn instead."""
        try:
            await self._edge.publish(row.id, row.address, row.generation, state, row.raw_token)
        except GatewayEntryError as error:
            log.error("gateway.entry_refused", workspace_id=row.id, error=str(error))  # noqa: TRY400
            await self._edge.withdraw(row.id)

    async def forget(self, workspace_id: str) -> None:
        """Withdraw a workspace: its tokens get 404, its SSH door closes."""
        async with self._order:
            await self._withdraw(workspace_id)

    async def refresh(self, workspace_id: str) -> None:
        """Publish what the database says now."""
        async with self._order:
            async with self._database.read() as session:
                row = await Workspaces(session).get(workspace_id)
            if row is None:
                await self._withdraw(workspace_id)
            else:
                await self.publish(row)

    async def resync(self) -> int:
        """Publish every row and nothing else; how many there are."""
        async with self._order:
            async with self._database.read() as session:
                rows = await Workspaces(session).page(Filter())
            kept = [row for row in rows if row.desired_state is not DesiredState.DELETED]
            try:
                await self._edge.sync([entry_of(row) for row in kept])
            finally:
                await self._bastion.sync([door for door in map(door_of, kept) if door is not None])
            return len(kept)

    async def _withdraw(self, workspace_id: str) -> None:
        try:
            await self._bastion.withdraw(workspace_id)
        finally:
            await self._edge.withdraw(workspace_id)

    def token(self, row: Workspace, kind: Kind = "gateway") -> tuple[str, datetime]:
        """A JWT for the gateway and its end: an hour, or 30 days for kind `workspace`."""
        ttl = GATEWAY_TTL if kind == "gateway" else WORKSPACE_TTL
        return mint(
            self._key,
            row.id,
            row.generation,
            kind,
            row.address or "0.0.0.0",  # noqa: S104 - a claim for people; nothing routes by it
            RUNTIME_PORT,
            ttl,
            now(),
        )
