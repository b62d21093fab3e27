"""Guests that have begun and do not know yet who they are, saved so that others begin there.

The first machine of a shape and image starts its agent before it is told anything; at that moment
its memory is written here. Until then it has run nothing but the kernel, the guest's scripts and
the agent, read no disk, and has no address, name, token or key: so it belongs to nobody, and any
other machine of that shape and image may go on from there with an identity of its own.

What such machines share is where their kernel and agent lie in memory, and the agent's hash seed;
the random pool is seeded anew before the agent does anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from bastide.node.errors import BootFailed, NodeError
from bastide.node.machines.microvm import memory
from bastide.node.machines.microvm.qmp import Qmp, QmpError

if TYPE_CHECKING:
    from bastide.node.machines.microvm.ground import Shape

_DRAFT = ".draft-"
_log = structlog.get_logger(__name__)


class NotLoaded(BootFailed):
    """A saved guest cannot be gone on from; a cold start can do without."""


class Warm:
    """The saved guests below `directory`, at most `most` of them; 0 keeps none."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._most = most
        self._making: set[str] = set()

    def key(self, shape: Shape, digest: str, bundle: str) -> str:
        """What two guests must have in common: shape, image `digest` and agent `bundle`."""
        whole = shape.model_copy(update={"cpus": float(math.ceil(shape.cpus))})
        told = f"{whole.model_dump_json()}\n{digest}\n{bundle}\n"
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def find(self, key: str) -> Path | None:
        """The directory to load a guest from, counted as used now. Blocks briefly."""
        place = self._directory / key
        if self._most == 0 or not (place / memory.FILE).is_file():
            return None
        with suppress(OSError):
            os.utime(place)
        return place

    def wanted(self, key: str) -> bool:
        """Whether one should be made where `find` finds none: nobody is at it."""
        return self._most > 0 and key not in self._making

    async def save(self, key: str, qmp: Qmp) -> None:
        """Save a guest that waits for its document, and let it go on.

        That it cannot be saved is of no consequence to that guest, and is logged.

        Raises:
            QmpError: it does not go on.
        """
        self._making.add(key)
        try:
            await qmp.run("stop")
            try:
                await self._write(key, qmp)
            finally:
                await qmp.run("cont")
        finally:
            self._making.discard(key)

    async def _write(self, key: str, qmp: Qmp) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._directory))
        try:
            await memory.save(qmp, draft)
            await asyncio.to_thread(self._keep, key, draft)
        except (NodeError, QmpError, OSError) as error:
            _log.warning("warm.not_saved", key=key, reason=str(error))
        finally:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    def _keep(self, key: str, draft: Path) -> None:
        place = self._directory / key
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        others = sorted(self._directory.iterdir(), key=_used)
        for old in [each for each in others if not each.name.startswith(_DRAFT)][: -self._most]:
            shutil.rmtree(old, ignore_errors=True)

    def forget(self, key: str) -> None:
        """Remove one that did not come up."""
        shutil.rmtree(self._directory / key, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an interrupted save left. Blocks."""
        with suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                if path.name.startswith(_DRAFT):
                    shutil.rmtree(path, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
