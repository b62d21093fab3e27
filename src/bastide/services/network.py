"""The network of a workspace (spec 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from bastide.domain.config import Config, NetworkConfig
from bastide.domain.creation import UpdateWorkspace
from bastide.domain.errors import Conflict, ValidationFailed
from bastide.domain.lifecycle import DesiredState
from bastide.domain.network import BlockedLog
from bastide.engine.contract import Engine, UnknownMachine
from bastide.services.caller import Caller
from bastide.services.failures import engine_failures
from bastide.services.links import Callers, callers_of
from bastide.services.reach import Reach, changed_network
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces

_ATTEMPTS = 8
_POOL = 0x0B_A5_71_DE_01
"""Key of the lock under which addresses of the pool are taken."""


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A workspace and the workspaces that may call it."""

    row: Workspace
    callers: Callers


class NetworkService:
    """Reads and changes the policy. `pool` holds the addresses workspaces can leave as."""

    def __init__(
        self,
        database: Database,
        workspaces: WorkspaceService,
        reach: Reach,
        engine: Engine,
        pool: tuple[IPv4Address, ...],
    ) -> None:
        self._database = database
        self._workspaces = workspaces
        self._reach = reach
        self._engine = engine
        self._pool = tuple(map(str, pool))

    async def get(self, caller: Caller, reference: str) -> NetworkView:
        """The workspace whose network is shown.

        Raises:
            NotFound, Forbidden: none that the caller reaches.
        """
        async with self._database.read() as session:
            row = caller.require(await Workspaces(session).find(caller.account_id, reference))
            return NetworkView(row, await callers_of(session, caller, row))

    async def change(self, caller: Caller, reference: str, body: NetworkConfig) -> NetworkView:
        """Change what was given, hot.

        Raises:
            ValidationFailed: the policy cannot be; the one before stays.
            VmUnavailable: stored, and put in force as soon as the machine can be reached.
        """
        update = UpdateWorkspace(config=Config(network_config=body))
        view = await self._workspaces.update(caller, reference, update)
        return await self.get(caller, view.row.id)

    async def leave_as(self, caller: Caller, reference: str, ip: str | None) -> NetworkView:
        """Be seen from outside as an address of the pool; None: as this server.

        An address belongs to the account of the first workspace that takes it, until its last
        one gives it back.

        Raises:
            ValidationFailed: the address is not in the pool.
            Conflict: another account uses it, or the workspace is being deleted.
        """
        view = await self.get(caller, reference)
        for _ in range(_ATTEMPTS):
            if await self._commit(caller, view.row.id, ip):
                break
        else:
            raise Conflict("The workspace is changing too fast; try again.")
        with engine_failures():
            await self._reach.put_in_force(view.row.id)
        return await self.get(caller, view.row.id)

    async def _commit(self, caller: Caller, workspace_id: str, ip: str | None) -> bool:
        """Write the address; False when the row changed meanwhile."""
        async with self._database.write() as session:
            await self._database.serialise(session, _POOL)
            workspaces = Workspaces(session)
            row = caller.require(await workspaces.get(workspace_id))
            if row.desired_state is DesiredState.DELETED:
                raise Conflict("The workspace is being deleted.", state="deleting")
            if ip is not None:
                if ip not in self._pool:
                    raise ValidationFailed(
                        "ip",
                        f"{ip[:100]!r} is no outbound address of this server. GET /zone/mine "
                        "lists them; the operator adds some with network.outbound_pool.",
                    )
                if ip in await self._taken(workspaces, row.account_id):
                    raise Conflict(
                        f"The address {ip} is used by another account. GET /zone/mine lists "
                        "those that are free.",
                        details={"field": "ip"},
                    )
            network = changed_network(row, outbound_ip=ip)
            seen = {"updated_at": row.updated_at}
            return await workspaces.update(row.id, {"network": network}, expected=seen)

    async def free_addresses(self, caller: Caller) -> list[str]:
        """The addresses of the pool that no other account uses."""
        caller.require_workspaces()
        async with self._database.read() as session:
            taken = await self._taken(Workspaces(session), caller.account_id)
        return [ip for ip in self._pool if ip not in taken]

    async def blocked(self, caller: Caller, reference: str) -> BlockedLog:
        """What the firewall refused the workspace lately; empty while it has no machine."""
        view = await self.get(caller, reference)
        with engine_failures():
            try:
                return await self._engine.blocked(view.row.id)
            except UnknownMachine:
                return BlockedLog()

    async def _taken(self, workspaces: Workspaces, account_id: str) -> set[str]:
        """The addresses of the pool that other accounts use."""
        taken = set()
        for ip in self._pool:
            users = await workspaces.mentioning(ip)
            if any(
                row.account_id != account_id and row.network.get("outbound_ip") == ip
                for row in users
            ):
                taken.add(ip)
        return taken
