"""The bytes of archives on their way between a workspace and where archives are kept.

The host never looks into them: they are compressed, counted and hashed as they pass, and only the
agent inside a workspace reads the tar.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bastide.depot.contract import Depot, DepotError, Missing
from bastide.depot.zstd import BrokenError, Expansion, Press
from bastide.domain.machine import ControlAddress
from bastide.engine.agent import Agent, AgentRefused
from bastide.engine.contract import EngineError
from bastide.services.machines import MIB
from bastide.store.tables import Archive

_FULL = 507
_BAD_PATHS = frozenset({400, 403, 404})
_UNFIT = frozenset({400, 403, 409, 413})
_SLACK = 16 * 1024 * MIB
"""Bytes that a tar may have beside twice its disk: what the image holds, and headers."""


@dataclass
class Progress:
    """How far a transfer is: bytes of the tar (of `whole`, if known), and stored or read back."""

    whole: int | None = None
    tar: int = 0
    stored: int = 0

    def __str__(self) -> str:
        done = f"{self.tar // MIB}"
        if self.whole is not None:
            done += f" of {-(-self.whole // MIB)}"
        return f"{done} MiB of files, {self.stored // MIB} MiB compressed"


@dataclass(frozen=True)
class Target:
    """Where an archive is put: a running machine, the image it is of, and a directory in it."""

    control: ControlAddress
    image: str
    dest: str = "/"


@dataclass(frozen=True)
class Sealed:
    """A stored archive."""

    size_bytes: int
    tar_bytes: int
    sha256: str


class Backups:
    """Takes backups of running machines, and puts them back.

    All calls raise `EngineError` with a code that `failure_of_operation` knows.
    """

    def __init__(self, agent: Agent, depot: Depot) -> None:
        self._agent = agent
        self._depot = depot

    async def take(
        self, control: ControlAddress, archive: Archive, most: int, progress: Progress
    ) -> Sealed:
        """Store the files of a machine; at most `most` compressed bytes.

        Nothing is stored when it fails or is cancelled.
        """
        press = Press()
        try:
            async with (
                self._agent.archive(control, archive.vm_paths, archive.exclude_vm_paths) as tar,
                self._depot.draft(archive.file) as draft,
            ):
                async for piece in tar:
                    data = await asyncio.to_thread(press.add, piece)
                    if data:
                        await draft.write(data)
                    progress.tar, progress.stored = press.read, press.written
                    _check(press, archive, most)
                await draft.write(await asyncio.to_thread(press.end))
                _check(press, archive, most)
                await draft.publish()
        except DepotError as error:
            raise EngineError("storage", str(error)) from error
        except AgentRefused as error:
            code = "archive_paths" if error.status in _BAD_PATHS else "ARCHIVE_FAILED"
            raise EngineError(code, error.message) from error
        return Sealed(press.written, press.read, press.sha256)

    async def put(self, target: Target, archive: Archive, progress: Progress) -> int:
        """Extract an archive into a machine; how many files and links it was.

        Files that came before a failure stay there.
        """
        content = self._expanded(archive, progress)
        try:
            return await self._agent.unpack(target.control, target.dest, content)
        except Missing as error:
            raise EngineError("archive_gone", str(error)) from error
        except DepotError as error:
            raise EngineError("storage", str(error)) from error
        except BrokenError as error:
            raise EngineError("UNPACK_FAILED", str(error)) from error
        except AgentRefused as error:
            raise _refused(error, archive, target) from error

    async def _expanded(self, archive: Archive, progress: Progress) -> AsyncIterator[bytes]:
        """The plain tar of a stored archive."""
        expansion = Expansion()
        async for piece in self._depot.read(archive.file):
            expansion.add(piece)
            progress.stored += len(piece)
            while data := await asyncio.to_thread(expansion.take):
                progress.tar += len(data)
                yield data
        expansion.end(archive.sha256)


def _refused(error: AgentRefused, archive: Archive, target: Target) -> EngineError:
    """What it means that an agent does not take an archive."""
    if error.status == _FULL:
        return EngineError("workspace_full", error.message)
    if error.status not in _UNFIT:
        return EngineError("UNPACK_FAILED", error.message)
    if error.field == "dest":
        return EngineError("archive_dest", error.message)
    message = error.message
    if target.dest == "/" and archive.image != target.image:
        message += (
            f"; the archive is of the image {archive.image}, and this workspace of {target.image}, "
            "whose directories may be laid out in another way: put it into a workspace of "
            f"{archive.image}, which a creation from the archive has when it names no image"
        )
    return EngineError("archive_unfit", message)


def _check(press: Press, archive: Archive, most: int) -> None:
    """Refuse what grows without bound.

    Raises:
        EngineError: `archive_too_large`.
    """
    if press.written > most:
        raise EngineError(
            "archive_too_large",
            f"it has more than {most // MIB} MiB, the most it may have now; leave paths out with "
            "exclude_vm_paths, or delete other archives",
        )
    if press.read > 2 * archive.disk_mb * MIB + _SLACK:
        raise EngineError(
            "archive_too_large", "it holds far more bytes than the disk of the workspace has"
        )
