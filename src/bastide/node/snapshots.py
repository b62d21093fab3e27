"""Snapshots of machines: memory and disk of one moment, kept beside the disks.

`directory/ID/current.json` names the directory of the last complete snapshot and says all that is
needed to bring it back; it is replaced in one step, so there is always one or none. Everything is
root's and closed to others.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bastide.domain.machine import MachineSpec, Snapshot
from bastide.node.errors import room_for
from bastide.node.machines.idrange import IdRange
from bastide.node.store import BootRecord, read, write
from bastide.sync import sync_entry
from bastide.thread import in_thread

_RECORD = "current.json"
_SYNCS = 16


class SnapshotRecord(BaseModel):
    """What must be the same again, or be known, when a snapshot comes back.

    `digest` is the image, `bundle` the agent's, `boot` the boot that was captured, whose token the
    agent knows until it is given another. It holds secrets.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    shown: Snapshot
    spec: MachineSpec
    digest: str
    bundle: str
    first_id: int
    boot: BootRecord
    tier: str = "container"


@dataclass(frozen=True)
class Draft:
    """The places of one snapshot: `memory` for the images, `work` for logs, `disk` a file."""

    path: Path

    @property
    def memory(self) -> Path:
        """CRIU's images."""
        return self.path / "memory"

    @property
    def work(self) -> Path:
        """CRIU's logs."""
        return self.path / "work"

    @property
    def disk(self) -> Path:
        """The copy of the disk."""
        return self.path / "disk.ext4"


class Snapshots:
    """The snapshots of this node, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._directories: tuple[Path, ...] = (self.directory,)
        self._known: dict[str, SnapshotRecord] | None = None

    def move(self, directory: Path) -> None:
        """Keep new snapshots in another directory; those there are stay where they are."""
        self._directories = (directory.resolve(), self.directory)
        self.directory = self._directories[0]
        self._known = None

    def get(self, machine: str) -> SnapshotRecord | None:
        """The last complete snapshot of a machine."""
        return self._all().get(machine)

    def place(self, record: SnapshotRecord) -> Draft:
        """Where a snapshot lies."""
        paths = [place / record.spec.id / record.name for place in self._directories]
        return Draft(next((path for path in paths if path.is_dir()), paths[0]))

    def ranges(self, but: str | None = None) -> list[IdRange]:
        """The host ids that snapshots hold for their machines, except those of `but`."""
        return [
            IdRange(record.first_id) for machine, record in self._all().items() if machine != but
        ]

    def digests(self) -> set[str]:
        """The images that snapshots need."""
        return {record.digest for record in self._all().values()}

    def machines(self) -> list[str]:
        """Ids of the machines that have one."""
        return sorted(self._all())

    @asynccontextmanager
    async def draft(self, machine: str) -> AsyncIterator[Draft]:
        """Places for a new snapshot. Gone at the end of the block, unless it was kept."""
        made = await asyncio.to_thread(self._make, machine)
        try:
            yield made
        finally:
            await in_thread(self._clear, machine)

    def keep(self, machine: str, record: SnapshotRecord) -> None:
        """Make a finished draft the last snapshot, in one step, on the disk. Blocks.

        Raises:
            NoSpace: the host is too full.
        """
        place = self.directory / machine / record.name
        with room_for(f"a snapshot of {machine}"):
            _sync(place)
            write(self.directory / machine / _RECORD, record)
        self._all()[machine] = record

    def remove(self, machine: str) -> None:
        """Delete the snapshot of a machine; harmless when there is none. Blocks."""
        self._all().pop(machine, None)
        for place in self._directories:
            (place / machine / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(place / machine, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what interrupted snapshots left; how many. Blocks."""
        found = {path.name for place in self._directories for path in place.glob("ws_*")}
        return sum(self._clear(machine) for machine in found)

    def _make(self, machine: str) -> Draft:
        made = Draft(self.directory / machine / uuid.uuid4().hex)
        with room_for(f"a snapshot of {machine}"):
            made.path.mkdir(mode=0o700, parents=True)
            for path in (self.directory, self.directory / machine):
                path.chmod(0o700)
            made.work.mkdir(mode=0o700)
            made.memory.mkdir(mode=0o700)
        return made

    def _clear(self, machine: str) -> int:
        """Remove everything of a machine that its last snapshot is not."""
        record = self.get(machine)
        kept = None if record is None else self.place(record).path
        removed = 0
        for home in (place / machine for place in self._directories):
            for path in home.iterdir() if home.is_dir() else ():
                if path.is_dir() and path != kept:
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
            if home.is_dir() and (kept is None or kept.parent != home):
                shutil.rmtree(home, ignore_errors=True)
        return removed

    def _all(self) -> dict[str, SnapshotRecord]:
        if self._known is None:
            paths = [
                path
                for place in reversed(self._directories)  # the newer place is read last and wins
                for path in place.glob(f"ws_*/{_RECORD}")
            ]
            found = (read(SnapshotRecord, path) for path in paths)
            self._known = {record.spec.id: record for record in found if record is not None}
        return self._known


def shown(machine: str, draft: Draft, at: datetime, spec: MachineSpec, **more: object) -> Snapshot:
    """What is told of a finished draft. Blocks."""
    values = {
        "id": f"{machine}/{draft.path.name}",
        "at": at,
        "image": spec.image,
        "memory_bytes": sum(path.stat().st_size for path in draft.memory.iterdir()),
        "disk_bytes": draft.disk.stat().st_blocks * 512,
        **more,
    }
    return Snapshot.model_validate(values)


def open_images(memory: Path) -> None:
    """Let everyone who holds the directory read the images. Blocks.

    The first process that comes back reads one of them before its ids are mapped, when it is
    nobody. Nobody else gets here: the directories above are closed.
    """
    memory.chmod(0o755)
    for path in memory.iterdir():
        path.chmod(0o644)


def _sync(place: Path) -> None:
    """Bring every file and directory of a snapshot to the disk; together, they share its waits."""
    paths = [path for path in place.rglob("*") if path.is_file() or path.is_dir()]
    with ThreadPoolExecutor(_SYNCS) as pool:
        for _ in pool.map(sync_entry, paths):
            pass
    for path in (place, place.parent):
        sync_entry(path)
