"""A whole control plane in this process, over a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncSession
from tests.fakes.bastion import FakeBastion
from tests.fakes.depot import FailingDepot
from tests.fakes.edge import FakeEdge
from tests.fakes.engine import FakeAgent, FakeEngine

from bastide.api.app import create_app
from bastide.api.assembly import Outside, assemble
from bastide.api.context import Services
from bastide.depot.contract import Depot
from bastide.services.first_credentials import FirstCredentials
from bastide.settings import Settings
from bastide.store.accounts import Accounts
from bastide.store.clock import database_time
from bastide.store.operations import Operations

DEADLINE = 60.0


class Near(httpx.ASGITransport):
    """Requests without a socket; like over one, others have a turn before each."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one."""
        await asyncio.sleep(0)
        return await super().handle_async_request(request)


@dataclass
class World:
    """What outlives a control plane: its settings, and the fakes outside of it.

    `ahead` lets leases end without waiting for them.
    """

    settings: Settings
    engine: FakeEngine = field(default_factory=FakeEngine)
    edge: FakeEdge = field(default_factory=FakeEdge)
    bastion: FakeBastion = field(default_factory=FakeBastion)
    agent: FakeAgent = field(init=False)
    depot: Depot = field(init=False)
    ahead: timedelta = timedelta()

    def __post_init__(self) -> None:
        self.agent = FakeAgent(self.engine)
        self.depot = FailingDepot(self.settings.archives_dir, reserve=0)

    async def time(self, session: AsyncSession) -> datetime:
        """The database's time, and as much later as the test wants."""
        return await database_time(session) + self.ahead

    @asynccontextmanager
    async def cloud(self) -> AsyncIterator[Cloud]:
        """A control plane that runs within the block."""
        outside = Outside(self.engine, self.agent, self.edge, self.bastion, self.depot, self.time)
        app = create_app(lambda: assemble(self.settings, outside))
        async with app.router.lifespan_context(app):
            first = FirstCredentials.read(self.settings.credentials_file)
            assert first is not None
            transport = Near(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport,
                base_url="http://api",
                headers={"X-Client-ID": first.client_id, "X-Client-Secret": first.client_secret},
            ) as http:
                yield Cloud(self, app.state.services, http)


@dataclass
class Cloud:
    """A running control plane, its parts, and an admin's HTTP client."""

    world: World
    services: Services
    http: httpx.AsyncClient

    @property
    def engine(self) -> FakeEngine:
        return self.world.engine

    @property
    def edge(self) -> FakeEdge:
        return self.world.edge

    @property
    def agent(self) -> FakeAgent:
        return self.world.agent

    async def call(
        self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any
    ) -> dict[str, Any]:
        """The body of an answer with the expected status."""
        answer = await self.http.request(method, path, json=body, timeout=DEADLINE, **more)
        assert answer.status_code == status, (answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        assert found["success"] is (status < 400)
        return found

    async def create(self, **body: Any) -> dict[str, Any]:
        """A workspace that is ready."""
        answer = await self.call("POST", "/workspace", {"wait_ready": True, **body}, status=201)
        found: dict[str, Any] = answer["workspace"]
        return found

    async def get(self, workspace_id: str) -> dict[str, Any]:
        """The workspace object."""
        found: dict[str, Any] = (await self.call("GET", f"/workspace/{workspace_id}"))["workspace"]
        return found

    async def until(
        self, workspace_id: str, reached: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The workspace object once it is as wanted."""
        async with asyncio.timeout(DEADLINE):
            while not reached(found := await self.get(workspace_id)):  # noqa: ASYNC110 - over HTTP there is no event
                await asyncio.sleep(0.01)
        return found

    async def lifecycle(self, workspace_id: str) -> dict[str, Any]:
        """The flat fields of its lifecycle."""
        return await self.call("GET", f"/workspace/{workspace_id}/lifecycle")

    async def limit(self, **limits: float) -> None:
        """Give the only account limits."""
        async with self.services.database.write() as session:
            account = await Accounts(session).first()
            assert account is not None
            account.limits = limits

    async def hurry(self, workspace_id: str) -> float:
        """Let what waits for its delay begin now; how many seconds it would have waited."""
        async with self.services.database.write() as session:
            waiting = await Operations(session).unfinished(workspace_id)
            assert waiting is not None
            delay = (waiting.run_after - waiting.created_at).total_seconds()
            waiting.run_after = waiting.created_at
        return delay

    async def gone(self, workspace_id: str) -> None:
        """Wait until a workspace does not exist any more."""
        async with asyncio.timeout(DEADLINE):
            path = f"/workspace/{workspace_id}"
            while (await self.http.get(path)).status_code != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def eventually(reached: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(DEADLINE):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
