"""Archives of workspaces: what the API answers, the calls, and both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any

from pydantic import Field

from bastide.client._call import LONG_TIMEOUT, Call, given, part
from bastide.client._errors import ArchiveFailed, WaitTimeout
from bastide.client._models import Model
from bastide.client._session import AsyncSession, Session

PAUSE = 0.5
"""Seconds between looks at an archive that is being made."""
PIECE = 1024 * 1024
WAIT = 6 * 3600.0
Version = int | str


class Fault(Model):
    """Why an archive could not be made."""

    code: str = "ARCHIVE_FAILED"
    message: str = ""


class Archive(Model):
    """A backup of a workspace's files: a tar compressed with zstd.

    `size_bytes` and `sha256` are of the compressed file. `status` is `creating`, `ready` or
    `failed`, `consistency` what the workspace was meanwhile: `running` or `stopped`.
    """

    version: Version
    status: str
    workspace_id: str
    name: str = ""
    size_bytes: int | None = None
    tar_bytes: int | None = None
    sha256: str | None = None
    vm_paths: list[str] = Field(default_factory=list)
    exclude_vm_paths: list[str] = Field(default_factory=list)
    consistency: str = ""
    image: str = ""
    created_at: datetime | None = None
    completed_at: datetime | None = None
    message: str | None = None
    error: Fault | None = None


def _create(
    workspace: str,
    version: Version | None,
    paths: Sequence[str] | None,
    excludes: Sequence[str] | None,
) -> Call[Archive]:
    wanted = {
        "version": version,
        "vm_paths": None if paths is None else list(paths),
        "exclude_vm_paths": None if excludes is None else list(excludes),
    }
    body = {**given(wanted), "wait": False}
    return Call("POST", _path(workspace), _archive, json=body, repeatable=False)


def _list(workspace: str) -> Call[list[Archive]]:
    return Call(
        "GET",
        _path(workspace),
        lambda body: [Archive.model_validate(one) for one in body["archives"]],
    )


def _get(workspace: str, version: Version) -> Call[Archive]:
    return Call("GET", _path(workspace, version), _archive)


def _restore(workspace: str, version: Version, into: str | None, dest: str | None) -> Call[int]:
    return Call(
        "POST",
        f"{_path(workspace, version)}/restore",
        lambda answer: int(answer["files_restored"]),
        json=given({"workspace": into, "dest": dest}),
        repeatable=False,
        timeout=LONG_TIMEOUT,
    )


def _delete(workspace: str, version: Version, *, file: bool) -> Call[None]:
    return Call(
        "DELETE",
        _path(workspace, version),
        lambda _: None,
        params={"delete_file": file},
        timeout=LONG_TIMEOUT,
    )


def _delete_all(workspace: str, *, files: bool) -> Call[int]:
    return Call(
        "DELETE",
        _path(workspace),
        lambda body: int(body["deleted"]),
        params={"delete_files": files},
        timeout=LONG_TIMEOUT,
    )


def _download(workspace: str, version: Version, start: int, etag: str | None) -> Call[None]:
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and etag is not None:
        headers["If-Range"] = f'"{etag}"'
    return Call("GET", f"{_path(workspace, version)}/download", lambda _: None, headers=headers)


def _path(workspace: str, version: Version | None = None) -> str:
    tail = "" if version is None else f"/{part(str(version))}"
    return f"/workspace/{part(workspace)}/archives{tail}"


def _archive(body: Any) -> Archive:
    return Archive.model_validate(body["archive"])


def _settled(archive: Archive) -> bool:
    """Whether it is ready.

    Raises:
        ArchiveFailed: it never will be.
    """
    if archive.status == "failed":
        fault = archive.error or Fault()
        raise ArchiveFailed(fault.code, fault.message or "the archive could not be made")
    return archive.status == "ready"


def _late(archive: Archive, seconds: float) -> WaitTimeout:
    return WaitTimeout(f"archive {archive.version} is not ready after {seconds:.0f} seconds")


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
        made = self._api.send(_create(workspace, version, paths, excludes))
        end = self._clock() + timeout
        while wait and not _settled(made):
            if on_change is not None:
                on_change(made)
            if self._clock() >= end:
                raise _late(made, timeout)
            self._sleep(PAUSE)
            made = self._api.send(_get(made.workspace_id, made.version))
        return made

    def list(self, workspace: str) -> list[Archive]:
        """Those of a workspace, newest first."""
        return self._api.send(_list(workspace))

    def get(self, workspace: str, version: Version) -> Archive:
        """One version."""
        return self._api.send(_get(workspace, version))

    @contextmanager
    def download(
        self, workspace: str, version: Version, *, start: int = 0, sha256: str | None = None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Where in the file the bytes begin, and the bytes to its end.

        With `start` a broken download goes on, provided the file still has that `sha256`;
        otherwise it begins at 0.
        """
        with self._api.stream(_download(workspace, version, start, sha256)) as answer:
            yield (start if answer.status_code == 206 else 0), answer.iter_raw(PIECE)

    def restore(
        self,
        workspace: str,
        version: Version,
        *,
        into: str | None = None,
        dest: str | None = None,
    ) -> int:
        """Put its files over those of the workspace, or of `into`; how many there were.

        `dest` is the directory that its paths are put below, `/` unless given.
        """
        return self._api.send(_restore(workspace, version, into, dest))

    def delete(self, workspace: str, version: Version, *, file: bool = True) -> None:
        """Delete one; with `file` false its bytes stay stored and count."""
        self._api.send(_delete(workspace, version, file=file))

    def delete_all(self, workspace: str, *, files: bool = True) -> int:
        """Delete all of a workspace; how many there were."""
        return self._api.send(_delete_all(workspace, files=files))


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
        made = await self._api.send(_create(workspace, version, paths, excludes))
        end = self._clock() + timeout
        while wait and not _settled(made):
            if on_change is not None:
                on_change(made)
            if self._clock() >= end:
                raise _late(made, timeout)
            await self._sleep(PAUSE)
            made = await self._api.send(_get(made.workspace_id, made.version))
        return made

    async def list(self, workspace: str) -> list[Archive]:
        """Those of a workspace, newest first."""
        return await self._api.send(_list(workspace))

    async def get(self, workspace: str, version: Version) -> Archive:
        """One version."""
        return await self._api.send(_get(workspace, version))

    @asynccontextmanager
    async def download(
        self, workspace: str, version: Version, *, start: int = 0, sha256: str | None = None
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """Where in the file the bytes begin, and the bytes; as `Archives.download`."""
        async with self._api.stream(_download(workspace, version, start, sha256)) as answer:
            yield (start if answer.status_code == 206 else 0), answer.aiter_raw(PIECE)

    async def restore(
        self,
        workspace: str,
        version: Version,
        *,
        into: str | None = None,
        dest: str | None = None,
    ) -> int:
        """Put its files over those of the workspace, or of `into`; how many there were."""
        return await self._api.send(_restore(workspace, version, into, dest))

    async def delete(self, workspace: str, version: Version, *, file: bool = True) -> None:
        """Delete one; with `file` false its bytes stay stored and count."""
        await self._api.send(_delete(workspace, version, file=file))

    async def delete_all(self, workspace: str, *, files: bool = True) -> int:
        """Delete all of a workspace; how many there were."""
        return await self._api.send(_delete_all(workspace, files=files))
