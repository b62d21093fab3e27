"""A depot in a directory of this server."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from bastide.depot.contract import PIECE, Depot, DepotError, DepotFull, Draft, Missing, checked
from bastide.sync import sync_directory
from bastide.thread import in_thread

RESERVE_BYTES = 1024 * 1024 * 1024
"""Bytes that stay free for everything else on this host."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_T = TypeVar("_T")


class DirectoryDepot(Depot):
    """Files below `directory`, 0600; drafts are there too, with a dot before their names."""

    def __init__(self, directory: Path, reserve: int = RESERVE_BYTES) -> None:
        self._directory = directory
        self._reserve = reserve

    @asynccontextmanager
    async def draft(self, name: str) -> AsyncIterator[Draft]:
        """See `Depot.draft`."""
        path = self._directory / checked(name)
        draft = path.with_name(f".{name}.{secrets.token_hex(4)}")

        def create() -> int:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_drafts(name)
            return os.open(draft, _NEW, 0o600)

        file = await self._run(create)
        writing = _DirectoryDraft(self, file, draft, path)
        try:
            yield writing
        finally:
            os.close(file)
            if not writing.published:
                draft.unlink(missing_ok=True)

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `Depot.read`."""
        path = self._directory / checked(name)
        try:
            file = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Missing(f"the file {name} is not in {self._directory}") from None
        except OSError as error:
            raise self._problem(error) from error
        try:
            place = start
            while end is None or place < end:
                wanted = PIECE if end is None else min(PIECE, end - place)
                data = await self._run(partial(os.pread, file, wanted, place))
                if not data:
                    return
                place += len(data)
                yield data
        finally:
            os.close(file)

    async def size(self, name: str) -> int | None:
        """See `Depot.size`."""
        path = self._directory / checked(name)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._problem(error) from error

    async def remove(self, name: str) -> None:
        """See `Depot.remove`."""
        path = self._directory / checked(name)

        def remove() -> None:
            path.unlink(missing_ok=True)
            self._drop_drafts(name)
            with suppress(FileNotFoundError):
                sync_directory(self._directory)

        await self._run(remove)

    def check_room(self, coming: int) -> None:
        """Refuse bytes that would take the last of the host's room.

        Raises:
            DepotFull: says how much there is.
        """
        free = shutil.disk_usage(self._directory).free
        if free - coming < self._reserve:
            raise DepotFull(
                f"the server has {free // 2**20} MiB left below {self._directory}, of which "
                f"{self._reserve // 2**20} stay free: delete archives or workspaces"
            )

    def _drop_drafts(self, name: str) -> None:
        """Remove drafts of this name; whoever still writes one cannot publish it any more."""
        for file in self._directory.glob(f".{name}.*"):
            file.unlink(missing_ok=True)

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Work in a thread; what the file system refuses is the depot's problem."""
        try:
            return await in_thread(work)
        except OSError as error:
            raise self._problem(error) from error

    def _problem(self, error: OSError) -> DepotError:
        if error.errno in _FULL:
            return DepotFull(f"the server has no room left below {self._directory}")
        reason = os.strerror(error.errno or 0).lower()
        return DepotError(f"{self._directory} cannot be used: {reason}")


class _DirectoryDraft(Draft):
    def __init__(self, depot: DirectoryDepot, file: int, draft: Path, path: Path) -> None:
        self._depot = depot
        self._file = file
        self._draft = draft
        self._path = path
        self.published = False

    async def write(self, data: bytes) -> None:
        """See `Draft.write`."""
        await self._depot._run(lambda: self._write(data))  # noqa: SLF001 - a part of it

    async def publish(self) -> None:
        """See `Draft.publish`."""
        await self._depot._run(self._publish)  # noqa: SLF001 - a part of it

    def _write(self, data: bytes) -> None:
        self._depot.check_room(len(data))
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _publish(self) -> None:
        os.fsync(self._file)
        self._draft.replace(self._path)
        self.published = True
        sync_directory(self._path.parent)
