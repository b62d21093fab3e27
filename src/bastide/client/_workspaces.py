"""The workspaces of an account."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bastide.client import _workspace_calls as calls
from bastide.client._archives import Archives
from bastide.client._errors import BastideError, WaitTimeout
from bastide.client._lifecycle import Lifecycles
from bastide.client._models import (
    Category,
    Image,
    Lifecycle,
    MachineInfo,
    Mode,
    Workspace,
    WorkspacePage,
)
from bastide.client._network import Networks
from bastide.client._runtime import Runtime
from bastide.client._session import Session
from bastide.client._ssh import Ssh
from bastide.client._tokens import Tokens

READY_TIMEOUT = 600.0
PAGE = 100
FIRST_PAUSE = 0.02
LAST_PAUSE = 1.0


class Workspaces(Lifecycles):
    """Create, find, run and delete workspaces. Each is named by id or slug."""

    def __init__(
        self,
        api: Session,
        gateway: Session,
        tokens: Tokens,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._gateway = gateway
        self.ssh = Ssh(api)
        self.network = Networks(api)
        self.archives = Archives(api, clock=clock, sleep=sleep)
        self._tokens = tokens
        self._clock = clock
        self._sleep = sleep

    def create(
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
            return self._api.send(call)
        end = self._clock() + timeout
        try:
            workspace = self._api.send(calls.waiting(call, timeout))
        except BastideError as error:
            if not calls.unsettled(error):
                raise
            workspace = self._api.send(call)
        if calls.settled(workspace):
            return workspace
        return self.wait_ready(workspace.id, timeout=max(0.0, end - self._clock()))

    def get(self, workspace: str) -> Workspace:
        """One workspace."""
        return self._api.send(calls.get(workspace))

    def page(
        self,
        page: int | None = None,
        limit: int | None = None,
        *,
        status: str | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
    ) -> WorkspacePage:
        """One page of the list, and how many there are in all."""
        return self._api.send(calls.list_(page, limit, status, mode, namespace))

    def list(
        self,
        *,
        status: str | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
    ) -> Iterator[Workspace]:
        """Every workspace, fetched page by page as they are asked for."""
        number = 1
        while True:
            got = self.page(number, PAGE, status=status, mode=mode, namespace=namespace)
            yield from got.workspaces
            if not got.workspaces or number * PAGE >= got.total:
                return
            number += 1

    def update(self, workspace: str, **changes: Any) -> Workspace:
        """Change `name`, `slug`, `logo` or `config`; what is not named stays."""
        return self._api.send(calls.update(workspace, changes))

    def delete(self, workspace: str) -> None:
        """Delete for good, from any state."""
        self._api.send(calls.delete(workspace))
        self._tokens.forget(workspace)

    def start(self, workspace: str, *, force: bool = False) -> None:
        """Start a stopped workspace."""
        self._api.send(calls.power(workspace, "start", {"force": True} if force else None))

    def stop(self, workspace: str) -> None:
        """Shut it down; its disk is kept."""
        self._api.send(calls.power(workspace, "stop"))

    def restart(self, workspace: str) -> None:
        """Stop, then start."""
        self._api.send(calls.power(workspace, "restart"))

    def lifecycle(self, workspace: str) -> Lifecycle:
        """Mode, status, restart policy and uptime."""
        return self._api.send(calls.lifecycle(workspace))

    def info(self, workspace: str) -> MachineInfo:
        """Tier, state and boot timings of its machine."""
        return self._api.send(calls.info(workspace))

    def wait_ready(
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
            now = self.get(workspace)
            if on_change is not None and now.provisioning != shown:
                shown = now.provisioning
                on_change(now)
            if calls.settled(now):
                return now
            if self._clock() >= end:
                raise WaitTimeout(f"{workspace} was not ready within {timeout:g} seconds")
            self._sleep(pause)
            pause = min(pause * 1.3, LAST_PAUSE)

    def runtime(self, workspace: str) -> Runtime:
        """Commands and files inside the workspace; its runtime server is enabled if need be."""

        def token(*, fresh: bool) -> str:
            kept = None if fresh else self._tokens.get(workspace)
            if kept is not None:
                return kept
            # Enabling what is enabled changes nothing: one call where asking first takes two.
            return self._tokens.keep(workspace, self._api.send(calls.runtime_enable(workspace)))

        return Runtime(self._gateway, token)


class Images:
    """What workspaces can be made from."""

    def __init__(self, api: Session) -> None:
        self._api = api

    def categories(self) -> list[Category]:
        """The categories there are images of, and `all`."""
        return self._api.send(calls.categories())

    def list(self, search: str | None = None, category: str | None = None) -> list[Image]:
        """The catalogue, or what of it fits."""
        return self._api.send(calls.images(search, category))
