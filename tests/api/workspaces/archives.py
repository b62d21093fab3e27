"""Archives over the API, as several tests make and look at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.api.workspaces.cloud import DEADLINE, Cloud, World, eventually
from tests.fakes.depot import FailingDepot

from bastide.domain.scope import Scope
from bastide.services.caller import Caller

CONTENT = b"files " * 1000 + b"more"


def stored(world: World) -> list[str]:
    """Every file of the depot, hidden ones too."""
    return sorted(path.name for path in world.settings.archives_dir.glob("*"))


async def archive(cloud: Cloud, workspace: str, **body: Any) -> dict[str, Any]:
    """A new archive."""
    return await cloud.call("POST", f"/workspace/{workspace}/archives", body or None, status=201)


async def listed(cloud: Cloud, workspace: str) -> list[dict[str, Any]]:
    """The archives of a workspace."""
    found = await cloud.call("GET", f"/workspace/{workspace}/archives")
    return list(found["archives"])


async def begun(cloud: Cloud, workspace: str, **body: Any) -> asyncio.Task[dict[str, Any]]:
    """A creation that has begun and waits for more files."""
    cloud.agent.flow.clear()
    before = len(cloud.agent.asked)
    task = asyncio.create_task(archive(cloud, workspace, **body))
    await eventually(lambda: len(cloud.agent.asked) > before or task.done())
    return task


def failing(cloud: Cloud) -> FailingDepot:
    """The depot, which can be told to fail."""
    assert isinstance(cloud.world.depot, FailingDepot)
    return cloud.world.depot


async def until(cloud: Cloud, path: str, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until an archive is as wanted."""
    async with asyncio.timeout(DEADLINE):
        while not reached(await cloud.call("GET", path)):  # noqa: ASYNC110 - over HTTP there is no event
            await asyncio.sleep(0.05)


async def stranger_of(cloud: Cloud) -> dict[str, str]:
    """Credentials of another account."""
    account = await cloud.services.accounts.create("stranger")
    caller = Caller(account.id, Scope.ADMIN, "test")
    issued = await cloud.services.keys.create(caller, scope=Scope.ADMIN)
    return {"X-Client-ID": issued.client_id, "X-Client-Secret": issued.client_secret}


async def key_of(cloud: Cloud, scope: Scope, **reach: str) -> dict[str, str]:
    """Narrower credentials of the same account."""
    admin = await cloud.services.keys.authenticate(
        cloud.http.headers["X-Client-ID"], cloud.http.headers["X-Client-Secret"]
    )
    issued = await cloud.services.keys.create(admin, scope, **reach)
    return {"X-Client-ID": issued.client_id, "X-Client-Secret": issued.client_secret}
