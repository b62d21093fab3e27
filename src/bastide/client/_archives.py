"""Archives of workspaces, in both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from bastide.client import _archive_calls as calls
from bastide.client._archive_calls import Archive, ArchivePage, Version
from bastide.client._models import Operation
from bastide.client._session import AsyncSession, Session

PAUSE = 0.5
"""Seconds between looks at what is being made or restored."""
PIECE = 1024 * 1024
PAGE = 100
WAIT = 6 * 3600.0


class Archives:
    """Archives of workspaces, each named by id or slug; deleted ones by id."""

    def __init__(
        self,
        api: Session,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._clock = clock
        self._sleep = sleep

    def create(
        self,
        workspace: str,
        version: Version | None = None,
        *,
        paths: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
        wait: bool = True,
        timeout: float = WAIT,
        on_change: Callable[[Archive], None] | None = None,
    ) -> Archive:
        """Back up its files: all, or those of `paths` without `excludes`.

        Excludes are paths (`/var/cache`) or names anywhere (`node_modules`, `*.log`). `on_change`
        is told each step of the way.

        Raises:
            ArchiveFailed: it could not be made, and why.
            WaitTimeout: it is not ready after `timeout` seconds; it goes on.
        """
        made = self._api.send(calls.create(workspace, version, paths, excludes))
        end = self._clock() + timeout
        while wait and not calls.settled(made):
            if on_change is not None:
                on_change(made)
            if self._clock() >= end:
                raise calls.late(made, timeout)
            self._sleep(PAUSE)
            made = self._api.send(calls.get(made.workspace_id, made.version))
        return made

    def list(self, workspace: str) -> list[Archive]:
        """Those of a workspace, newest first."""
        return self._api.send(calls.list_(workspace))

    def page(
        self, page: int = 1, limit: int = PAGE, *, namespace: str | None = None
    ) -> ArchivePage:
        """One page of those of all workspaces, also of deleted ones; newest first."""
        return self._api.send(calls.all_(page, limit, namespace))

    def all(self, *, namespace: str | None = None) -> Iterator[Archive]:
        """Those of all workspaces, fetched page by page as they are asked for."""
        number = 1
        while True:
            got = self.page(number, namespace=namespace)
            yield from got.archives
            if not got.archives or number * PAGE >= got.total:
                return
            number += 1

    def get(self, workspace: str, version: Version) -> Archive:
        """One version."""
        return self._api.send(calls.get(workspace, version))

    @contextmanager
    def download(
        self, workspace: str, version: Version, *, start: int = 0, sha256: str | None = None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Where in the file the bytes begin, and the bytes to its end.

        With `start` a broken download goes on, provided the file still has that `sha256`;
        otherwise it begins at 0.
        """
        with self._api.stream(calls.download(workspace, version, start, sha256)) as answer:
            yield (start if answer.status_code == 206 else 0), answer.iter_raw(PIECE)

    def restore(
        self,
        workspace: str,
        version: Version,
        *,
        into: str | None = None,
        dest: str | None = None,
        timeout: float = WAIT,
        on_change: Callable[[Operation], None] | None = None,
    ) -> int:
        """Put its files over those of the workspace, or of `into`; how many there were.

        `dest` is the directory that its paths are put below, `/` unless given. `on_change` is
        told each step of the way.

        Raises:
            ApiError: it was refused or failed; files that came before stay.
            WaitTimeout: it is not done after `timeout` seconds; it goes on.
        """
        now = self._api.send(calls.restore(workspace, version, into, dest))
        end = self._clock() + timeout
        while (count := calls.restored(now)) is None:
            if on_change is not None:
                on_change(now)
            if self._clock() >= end:
                raise calls.unfinished(now, timeout)
            self._sleep(PAUSE)
            now = self._api.send(calls.operation(now))
        return count

    def delete(self, workspace: str, version: Version, *, file: bool = True) -> None:
        """Delete one; with `file` false its bytes stay stored and count."""
        self._api.send(calls.delete(workspace, version, file=file))

    def delete_all(self, workspace: str, *, files: bool = True) -> int:
        """Delete all of a workspace; how many there were."""
        return self._api.send(calls.delete_all(workspace, files=files))


class AsyncArchives:
    """The same for asyncio."""

    def __init__(
        self,
        api: AsyncSession,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._clock = clock
        self._sleep = sleep

    async def create(
        self,
        workspace: str,
        version: Version | None = None,
        *,
        paths: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
        wait: bool = True,
        timeout: float = WAIT,
        on_change: Callable[[Archive], None] | None = None,
    ) -> Archive:
        """Back up its files; as `Archives.create`."""
        made = await self._api.send(calls.create(workspace, version, paths, excludes))
        end = self._clock() + timeout
        while wait and not calls.settled(made):
            if on_change is not None:
                on_change(made)
            if self._clock() >= end:
                raise calls.late(made, timeout)
            await self._sleep(PAUSE)
            made = await self._api.send(calls.get(made.workspace_id, made.version))
        return made

    async def list(self, workspace: str) -> list[Archive]:
        """Those of a workspace, newest first."""
        return await self._api.send(calls.list_(workspace))

    async def page(
        self, page: int = 1, limit: int = PAGE, *, namespace: str | None = None
    ) -> ArchivePage:
        """One page of those of all workspaces, also of deleted ones; newest first."""
        return await self._api.send(calls.all_(page, limit, namespace))

    async def all(self, *, namespace: str | None = None) -> AsyncIterator[Archive]:
        """Those of all workspaces, fetched page by page as they are asked for."""
        number = 1
        while True:
            got = await self.page(number, namespace=namespace)
            for archive in got.archives:
                yield archive
            if not got.archives or number * PAGE >= got.total:
                return
            number += 1

    async def get(self, workspace: str, version: Version) -> Archive:
        """One version."""
        return await self._api.send(calls.get(workspace, version))

    @asynccontextmanager
    async def download(
        self, workspace: str, version: Version, *, start: int = 0, sha256: str | None = None
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """Where in the file the bytes begin, and the bytes; as `Archives.download`."""
        async with self._api.stream(calls.download(workspace, version, start, sha256)) as answer:
            yield (start if answer.status_code == 206 else 0), answer.aiter_raw(PIECE)

    async def restore(
        self,
        workspace: str,
        version: Version,
        *,
        into: str | None = None,
        dest: str | None = None,
        timeout: float = WAIT,
        on_change: Callable[[Operation], None] | None = None,
    ) -> int:
        """Put its files over those of the workspace, or of `into`; how many there were."""
        now = await self._api.send(calls.restore(workspace, version, into, dest))
        end = self._clock() + timeout
        while (count := calls.restored(now)) is None:
            if on_change is not None:
                on_change(now)
            if self._clock() >= end:
                raise calls.unfinished(now, timeout)
            await self._sleep(PAUSE)
            now = await self._api.send(calls.operation(now))
        return count

    async def delete(self, workspace: str, version: Version, *, file: bool = True) -> None:
        """Delete one; with `file` false its bytes stay stored and count."""
        await self._api.send(calls.delete(workspace, version, file=file))

    async def delete_all(self, workspace: str, *, files: bool = True) -> int:
        """Delete all of a workspace; how many there were."""
        return await self._api.send(calls.delete_all(workspace, files=files))
