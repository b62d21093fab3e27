"""The workspaces of an account, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from bastide.client import _workspace_calls as calls
from bastide.client._archives import AsyncArchives
from bastide.client._async_lifecycle import AsyncLifecycles
from bastide.client._async_runtime import AsyncRuntime
from bastide.client._errors import BastideError, WaitTimeout
from bastide.client._models import (
    Category,
    Image,
    Lifecycle,
    MachineInfo,
    Mode,
    Workspace,
    WorkspacePage,
)
from bastide.client._network import AsyncNetworks
from bastide.client._session import AsyncSession
from bastide.client._ssh import AsyncSsh
from bastide.client._tokens import Tokens

READY_TIMEOUT = 600.0
PAGE = 100
FIRST_PAUSE = 0.02
LAST_PAUSE = 1.0


class AsyncWorkspaces(AsyncLifecycles):
    """Create, find, run and delete workspaces. Each is named by id or slug."""

    def __init__(
        self,
        api: AsyncSession,
        gateway: AsyncSession,
        tokens: Tokens,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._gateway = gateway
        self.ssh = AsyncSsh(api)
        self.network = AsyncNetworks(api)
        self.archives = AsyncArchives(api, clock=clock, sleep=sleep)
        self._tokens = tokens
        self._clock = clock
        self._sleep = sleep

    async def create(
        self,
        image: str | None = None,
        *,
        image_auth: Mapping[str, str] | None = None,
        name: str | None = None,
        slug: str | None = None,
        namespace: str | None = None,
        mode: Mode | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        disk_size_mb: int | None = None,
        env: Mapping[str, str] | None = None,
        cmd: str | Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
        timeout: float = READY_TIMEOUT,
    ) -> Workspace:
        """Create a workspace and, unless `wait` is false, return once it is ready.

        `image` is an id of the catalogue or a reference in a registry; `image_auth` are
        `username` and `password` for that registry. `cmd` is its main command: words, or one line
        for the shell. `config` takes every other key of the API.
        Repeating with the same `idempotency_key` gives the same workspace.

        Raises:
            ProvisioningFailed: it could not be made.
            WaitTimeout: it was not ready within `timeout` seconds.
        """
        call = calls.create(
            image=image,
            image_auth=image_auth,
            name=name,
            slug=slug,
            namespace=namespace,
            mode=mode,
            cpus=cpus,
            memory_mb=memory_mb,
            disk_size_mb=disk_size_mb,
            env=env,
            cmd=cmd,
            config=config,
            idempotency_key=idempotency_key,
        )
        if not wait:
            return await self._api.send(call)
        end = self._clock() + timeout
        try:
            workspace = await self._api.send(calls.waiting(call, timeout))
        except BastideError as error:
            if not calls.unsettled(error):
                raise
            workspace = await self._api.send(call)
        if calls.settled(workspace):
            return workspace
        return await self.wait_ready(workspace.id, timeout=max(0.0, end - self._clock()))

    async def get(self, workspace: str) -> Workspace:
        """One workspace."""
        return await self._api.send(calls.get(workspace))

    async def page(
        self,
        page: int | None = None,
        limit: int | None = None,
        *,
        status: str | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
    ) -> WorkspacePage:
        """One page of the list, and how many there are in all."""
        return await self._api.send(calls.list_(page, limit, status, mode, namespace))

    async def list(
        self,
        *,
        status: str | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
    ) -> AsyncIterator[Workspace]:
        """Every workspace, fetched page by page as they are asked for."""
        number = 1
        while True:
            got = await self.page(number, PAGE, status=status, mode=mode, namespace=namespace)
            for workspace in got.workspaces:
                yield workspace
            if not got.workspaces or number * PAGE >= got.total:
                return
            number += 1

    async def update(self, workspace: str, **changes: Any) -> Workspace:
        """Change `name`, `slug`, `logo` or `config`; what is not named stays."""
        return await self._api.send(calls.update(workspace, changes))

    async def delete(self, workspace: str) -> None:
        """Delete for good, from any state."""
        await self._api.send(calls.delete(workspace))
        self._tokens.forget(workspace)

    async def start(self, workspace: str, *, force: bool = False) -> None:
        """Start a stopped workspace."""
        await self._api.send(calls.power(workspace, "start", {"force": True} if force else None))

    async def stop(self, workspace: str) -> None:
        """Shut it down; its disk is kept."""
        await self._api.send(calls.power(workspace, "stop"))

    async def restart(self, workspace: str) -> None:
        """Stop, then start."""
        await self._api.send(calls.power(workspace, "restart"))

    async def lifecycle(self, workspace: str) -> Lifecycle:
        """Mode, status, restart policy and uptime."""
        return await self._api.send(calls.lifecycle(workspace))

    async def info(self, workspace: str) -> MachineInfo:
        """Tier, state and boot timings of its machine."""
        return await self._api.send(calls.info(workspace))

    async def wait_ready(
        self,
        workspace: str,
        *,
        timeout: float = READY_TIMEOUT,
        on_change: Callable[[Workspace], None] | None = None,
    ) -> Workspace:
        """Return once it is ready; `on_change` hears of each new phase.

        Raises:
            ProvisioningFailed: it never will be.
            WaitTimeout: it was not within `timeout` seconds.
        """
        end = self._clock() + timeout
        pause = FIRST_PAUSE
        shown = None
        while True:
            now = await self.get(workspace)
            if on_change is not None and now.provisioning != shown:
                shown = now.provisioning
                on_change(now)
            if calls.settled(now):
                return now
            if self._clock() >= end:
                raise WaitTimeout(f"{workspace} was not ready within {timeout:g} seconds")
            await self._sleep(pause)
            pause = min(pause * 1.3, LAST_PAUSE)

    def runtime(self, workspace: str) -> AsyncRuntime:
        """Commands and files inside the workspace; its runtime server is enabled if need be."""

        async def token(*, fresh: bool) -> str:
            kept = None if fresh else self._tokens.get(workspace)
            if kept is not None:
                return kept
            # Enabling what is enabled changes nothing: one call where asking first takes two.
            return self._tokens.keep(
                workspace, await self._api.send(calls.runtime_enable(workspace))
            )

        return AsyncRuntime(self._gateway, token)


class AsyncImages:
    """What workspaces can be made from."""

    def __init__(self, api: AsyncSession) -> None:
        self._api = api

    async def categories(self) -> list[Category]:
        """The categories there are images of, and `all`."""
        return await self._api.send(calls.categories())

    async def list(self, search: str | None = None, category: str | None = None) -> list[Image]:
        """The catalogue, or what of it fits."""
        return await self._api.send(calls.images(search, category))
