"""How a container comes back from a snapshot: memory, network in between, and a new identity."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bastide.domain.machine import MachineSpec
from bastide.node.errors import BootFailed
from bastide.node.machines.boot import Clock
from bastide.node.machines.gate import Gate
from bastide.node.machines.host import Host
from bastide.node.machines.renewal import renew, shut
from bastide.node.snapshots import SnapshotRecord
from bastide.node.store import BootRecord


@dataclass(frozen=True)
class Revival:
    """One container coming back in the directory `path`, where all is mounted and configured."""

    host: Host
    spec: MachineSpec
    snapshot: SnapshotRecord
    path: Path
    gate: Gate
    clock: Clock

    async def run(self, watch: Callable[[int], BootRecord], output: int) -> BootRecord:
        """Bring it back; returns when its agent is that of the new boot.

        `watch` is told the first process's id as soon as there is one, and says which boot it is.
        `output` is a pipe in place of that on which the first process printed.

        Raises:
            BootFailed: it does not come back; what there is of it is for the caller to remove.
        """
        # The first process read from a pipe whose other end was gone, and gets such again.
        stdin, stdin_far = os.pipe2(os.O_CLOEXEC)
        os.close(stdin_far)
        images = self.host.snapshots.place(self.snapshot).memory
        with self.clock.stage("memory"):
            try:
                restoring = asyncio.create_task(
                    self.host.criu.restore(self.spec.id, self.path, images, stdin, output)
                )
                record = await self._pass(restoring, watch)
            finally:
                os.close(stdin)
        with self.clock.stage("agent"):
            await renew(self.host, self.spec, self.snapshot, record)
            await self.host.network.apply(self.spec.id, self.spec.network)
        return record

    async def _pass(
        self, restoring: asyncio.Task[None], watch: Callable[[int], BootRecord]
    ) -> BootRecord:
        """Link the network while the runtime waits at the gate, then let it come to its end."""
        reached = asyncio.create_task(self.gate.reached())
        try:
            await asyncio.wait({restoring, reached}, return_when=asyncio.FIRST_COMPLETED)
            if not reached.done():
                await restoring
                raise BootFailed("the memory came back without a network")
            pid = await reached
            record = watch(pid)
            with self.clock.stage("network"):
                await self.host.network.attach(self.spec.id, pid, shut(self.spec.network))
            self.gate.let_pass()
            await restoring
            return record
        finally:
            for task in (reached, restoring):
                task.cancel()
            await asyncio.gather(reached, restoring, return_exceptions=True)
