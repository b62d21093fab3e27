"""Building the services of one process, and taking them down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry

from bastide.api.background import running
from bastide.api.context import Services
from bastide.bastion.doors import Porter
from bastide.depot.contract import Depot
from bastide.depot.place import depot_of
from bastide.edge.edge import Edge
from bastide.engine.agent import Agent, HttpAgent
from bastide.engine.contract import Engine
from bastide.engine.local import LocalEngine
from bastide.gateway.keys import gateway_key, password_key
from bastide.pipelines.runner import Runner
from bastide.pipelines.tools import Tools
from bastide.services.accounts import AccountService
from bastide.services.allowance import Allowance
from bastide.services.archive_files import ArchiveFiles
from bastide.services.archives import ArchiveService
from bastide.services.backups import Backups
from bastide.services.bell import Bell
from bastide.services.catalogue import Catalogue
from bastide.services.details import DetailService
from bastide.services.gateway import DoorKeeper, EdgeMaps, Gateway
from bastide.services.keys import KeyService
from bastide.services.leases import LeaseService
from bastide.services.lifecycle import LifecycleService
from bastide.services.network import NetworkService
from bastide.services.power import PowerService
from bastide.services.queue import Queue
from bastide.services.quota import QuotaService
from bastide.services.reach import Reach
from bastide.services.resources import ResourceService
from bastide.services.runtime_access import RuntimeAccessService
from bastide.services.snapshots import SnapshotService
from bastide.services.ssh import SshService
from bastide.services.tokens import TokenService
from bastide.services.workspaces import WorkspaceService
from bastide.settings import Settings
from bastide.store.clock import Time, database_time
from bastide.store.database import Database
from bastide.store.migrate import migrate


@dataclass(frozen=True, slots=True)
class Outside:
    """What the control plane works on; tests put their own in its place."""

    engine: Engine
    agent: Agent
    edge: EdgeMaps
    bastion: DoorKeeper
    depot: Depot
    time: Time = database_time

    @classmethod
    @asynccontextmanager
    async def of(cls, settings: Settings) -> AsyncIterator[Self]:
        """Node, agents, edge, bastion and archives of this server."""
        engine, agent, edge = LocalEngine(settings.node_socket), HttpAgent(), Edge.of(settings)
        bastion = Porter(settings.bastion_map, password_key(settings))
        try:
            async with running("edge", edge.run()):
                yield cls(engine, agent, edge, bastion, depot_of(settings))
        finally:
            await agent.close()
            await engine.close()


@asynccontextmanager
async def assemble(settings: Settings, outside: Outside | None = None) -> AsyncIterator[Services]:
    """Open and migrate the database, make the first account if there is none, build the rest.

    What was opened is closed in the opposite order at the end.
    """
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database)
        accounts = AccountService(database, settings)
        await accounts.bootstrap()
        if outside is None:
            outside = await stack.enter_async_context(Outside.of(settings))
        queue = Queue(database, Bell())
        gateway = Gateway(database, outside.edge, gateway_key(settings), outside.bastion)
        reach = Reach(database, outside.engine, outside.agent, gateway)
        catalogue = Catalogue(outside.engine, settings.images)
        allowance = Allowance(settings.machines)
        workspaces = WorkspaceService(database, queue, catalogue, allowance, reach)
        tools = Tools(
            database=database,
            queue=queue,
            engine=outside.engine,
            reach=reach,
            gateway=gateway,
            pids=settings.machines.pids,
            time=outside.time,
        )
        lifecycle = LifecycleService(database, outside.engine, catalogue, workspaces)
        access = RuntimeAccessService(database, workspaces, reach, gateway)
        files = ArchiveFiles(database, outside.depot)
        runner = Runner(tools, Backups(outside.agent, outside.depot), files)
        await stack.enter_async_context(running("pipelines", runner.run()))
        power = PowerService(database, queue, allowance, workspaces)
        yield Services(
            settings=settings,
            database=database,
            metrics=CollectorRegistry(),
            accounts=accounts,
            keys=KeyService(database),
            tokens=TokenService(database, settings),
            catalogue=catalogue,
            workspaces=workspaces,
            power=power,
            network=NetworkService(
                database, workspaces, reach, outside.engine, settings.network.outbound_pool
            ),
            lifecycle=lifecycle,
            leases=LeaseService(database, catalogue, workspaces, outside.time),
            resources=ResourceService(
                database,
                queue,
                outside.engine,
                catalogue=catalogue,
                allowance=allowance,
                workspaces=workspaces,
            ),
            quota=QuotaService(database, allowance, settings.machines, settings.prices),
            details=DetailService(outside.engine, lifecycle, access),
            runtime_access=access,
            snapshots=SnapshotService(outside.engine, catalogue, workspaces, power),
            archives=ArchiveService(database, queue, outside.depot, files, settings.archives),
            ssh=SshService(database, workspaces, reach, password_key(settings)),
        )
