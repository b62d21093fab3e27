"""Shortage: what becomes of machines that write when the host's storage runs out.

Disks are sparse, so a machine can be refused a block that its file system has counted on. What it
loses then may be its journal, and the kernel makes the disk read-only until it is mounted anew.
So before the host is full, the room left on every mounted disk is taken from inside: writers are
told "no space" by their own file system, which harms nothing, and go on once the host has room.
Somebody else may still fill the host to its last block: whose disk became read-only is told.
"""

from __future__ import annotations

import asyncio

import structlog

from bastide.node.disks import RESERVE_BYTES
from bastide.node.machines.entry import Entry
from bastide.node.machines.fleet import Fleet
from bastide.node.machines.host import Host
from bastide.node.mounts import read_only

ENOUGH_BYTES = RESERVE_BYTES
LEAST_BYTES = ENOUGH_BYTES // 2
"""Bytes free on the host below which nothing is written any more; a fast writer gets beneath it."""
HELD = (
    "the host has almost no room left, so nothing more can be written to the disk; it goes on by "
    "itself when there is room again: delete workspaces or files, or add storage"
)
BROKEN = (
    "the disk is read-only: the host could not write to it, its storage was full perhaps. See that "
    "there is room, then restart the workspace; what was synced is there"
)
_log = structlog.get_logger(__name__)


class Shortage:
    """Watches the room there is for the machines of `fleet`. `short`: there is too little."""

    def __init__(self, host: Host, fleet: Fleet) -> None:
        self._host = host
        self._fleet = fleet
        self.short = False
        self._held: set[str] | None = None  # an earlier node may have held some

    async def look(self) -> None:
        """Hold the room of all disks when too little is left, until there is enough."""
        free = await asyncio.to_thread(self._host.disks.free)
        if self.short is not (free < (ENOUGH_BYTES if self.short else LEAST_BYTES)):
            self.short = not self.short
            _log.warning("node.room", short=self.short, free_bytes=free)
        running = self._fleet.up()
        if self._held is None:
            self._held = {entry.record.spec.id for entry in running}
        for entry in running:
            machine = entry.record.spec.id
            if (self.short or machine in self._held) and not entry.lock.locked():
                async with entry.lock:
                    await self._hold(entry, machine, self._held)

    async def _hold(self, entry: Entry, machine: str, held: set[str]) -> None:
        if entry.machine.boot_record is None:
            held.discard(machine)
            return
        await asyncio.to_thread(entry.machine.hold_room, hold=self.short)
        (held.add if self.short else held.discard)(machine)

    async def tell(self) -> None:
        """See to it that the status of a machine says what is the matter with its disk."""
        broken = set(await asyncio.to_thread(read_only, self._host.machines_dir, "ext4"))
        for entry in self._fleet.up():
            machine, before, entry.trouble = entry.record.spec.id, entry.trouble, None
            if entry.machine.disk in broken:
                entry.trouble = BROKEN
            elif self.short and machine in (self._held or ()):
                entry.trouble = HELD
            if entry.trouble == BROKEN != before:
                _log.error("machine.disk_read_only", workspace=machine)
