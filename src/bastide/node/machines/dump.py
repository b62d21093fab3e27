"""How a frozen container is put into a snapshot: memory and disk, side by side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bastide.node import kernel
from bastide.node.machines.boot import Clock
from bastide.node.machines.host import Host
from bastide.node.snapshots import Draft


@dataclass(frozen=True)
class Dump:
    """One frozen container, whose disk is mounted at `disk`, on its way into a draft."""

    host: Host
    machine: str
    disk: Path
    draft: Draft
    clock: Clock

    async def run(self) -> None:
        """Write the memory and copy the disk: nothing in the machine moves meanwhile.

        Raises:
            Conflict, BootFailed, NoSpace: see `Criu.dump`; the container is as before.
        """
        copying = asyncio.create_task(asyncio.to_thread(self._copy))
        copying.add_done_callback(lambda task: task.exception())  # the memory's failure comes first
        try:
            with self.clock.stage("memory"):
                await self.host.criu.dump(self.machine, self.draft.memory, self.draft.work)
        finally:
            await asyncio.wait((copying,))  # a thread cannot be cancelled
        with self.clock.stage("disk"):
            await copying

    def _copy(self) -> None:
        """Copy the mounted disk as it is at this moment. Blocks."""
        kernel.freeze(self.disk)
        try:
            self.host.disks.copy(self.machine, self.draft.disk)
        finally:
            kernel.thaw(self.disk)
