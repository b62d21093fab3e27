"""Who may reach a workspace: its policy, its runtime server, and the edge, brought in line.

A change is committed with `network.pending` set while the machine runs, and the flag goes when
engine, agent and edge have it; a crash in between leaves the flag, and the sweep does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from bastide.engine.agent import Agent
from bastide.engine.contract import Engine
from bastide.services.gateway import Gateway
from bastide.services.machines import access_of, ssh_access_of
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces

PENDING = "pending"


def changed_network(row: Workspace, **changes: Any) -> dict[str, Any]:
    """The `network` column with changes, marked as not yet in force if the machine runs."""
    network = {key: value for key, value in row.network.items() if key != PENDING}
    return {**network, **changes, **({PENDING: True} if row.ready else {})}


class Reach:
    """Puts in force what the row says about access."""

    def __init__(self, database: Database, engine: Engine, agent: Agent, gateway: Gateway) -> None:
        self._database = database
        self._engine = engine
        self._agent = agent
        self._gateway = gateway
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put_in_force(self, workspace_id: str) -> Workspace | None:
        """Tell firewall, agent and edge; the row they were told of (None: it is gone).

        The edge is told whatever becomes of the machine.

        Raises:
            EngineError: the machine could not be told; the row keeps its mark.
        """
        turn = self._turns.setdefault(workspace_id, asyncio.Lock())
        async with turn:
            row = await self._read(workspace_id)
            edge = asyncio.create_task(self._gateway.refresh(workspace_id))
            try:
                if row is not None and row.ready:
                    await self._tell_machine(row)
            finally:
                await edge
            if row is not None and row.ready and row.network.get(PENDING):
                await self._settle(row)
            return row

    async def take_back(self, before: Workspace) -> None:
        """Write the network of an earlier row, unless it was changed again in the meantime."""
        async with self._database.write() as session:
            row = await Workspaces(session).get(before.id)
            if row is not None and row.ready:
                network = {key: value for key, value in before.network.items() if key != PENDING}
                expected = {"updated_at": row.updated_at}
                await Workspaces(session).update(row.id, {"network": network}, expected=expected)
        await self._gateway.refresh(before.id)

    async def _tell_machine(self, row: Workspace) -> None:
        """Firewall, then agent."""
        policy, runtime = access_of(row)
        status = await self._engine.apply_network(row.id, policy)
        if status.control is None:
            status = await self._engine.status(row.id)
        if status.control is not None:
            await self._agent.set_runtime(
                status.control, enabled=runtime.enabled, token=runtime.token
            )
            if row.ssh:
                await self._agent.set_ssh(status.control, ssh_access_of(row))

    async def _settle(self, row: Workspace) -> None:
        """Take the mark away, unless the row has been changed again."""
        values: Mapping[str, Any] = {
            "network": {key: value for key, value in row.network.items() if key != PENDING}
        }
        async with self._database.write() as session:
            await Workspaces(session).update(
                row.id, values, expected={"updated_at": row.updated_at}
            )

    async def _read(self, workspace_id: str) -> Workspace | None:
        async with self._database.read() as session:
            return await Workspaces(session).get(workspace_id)
