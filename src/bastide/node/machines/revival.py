"""How a container comes back from a snapshot: memory, network in between, and a new identity."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bastide.domain.machine import RUNTIME_PORT, SSH_PORT, MachineSpec
from bastide.domain.network import NetworkPolicy
from bastide.node.agent import tell
from bastide.node.errors import BootFailed
from bastide.node.machines.boot import Clock, boot_document
from bastide.node.machines.gate import Gate
from bastide.node.machines.host import Host
from bastide.node.snapshots import SnapshotRecord
from bastide.node.store import BootRecord

_AGENT_PORTS = (RUNTIME_PORT, SSH_PORT)


@dataclass(frozen=True)
class Revival:
    """One container coming back in the directory `path`, where all is mounted and configured."""

    host: Host
    spec: MachineSpec
    snapshot: SnapshotRecord
    path: Path
    gate: Gate
    clock: Clock

    async def run(self, watch: Callable[[int], BootRecord]) -> BootRecord:
        """Bring it back; returns when its agent is that of the new boot.

        `watch` is told the first process's id as soon as there is one, and says which boot it is.

        Raises:
            BootFailed: it does not come back; what there is of it is for the caller to remove.
        """
        # The first process had pipes whose other ends were gone, and gets such again.
        stdin, stdin_far = os.pipe2(os.O_CLOEXEC)
        output_far, output = os.pipe2(os.O_CLOEXEC)
        os.close(stdin_far)
        os.close(output_far)
        images = self.host.snapshots.place(self.snapshot).memory
        with self.clock.stage("memory"):
            try:
                restoring = asyncio.create_task(
                    self.host.criu.restore(self.spec.id, self.path, images, stdin, output)
                )
                record = await self._pass(restoring, watch)
            finally:
                os.close(stdin)
                os.close(output)
        with self.clock.stage("agent"):
            await self._renew(record)
            await self.host.network.apply(self.spec.id, self.spec.network)
        return record

    @property
    def _shut(self) -> NetworkPolicy:
        """The policy without the ways to the agent, which has its former tokens until `_renew`.

        The rest is in force at once: a connection that came back would be reset by a firewall
        that is closed to it, for its first packet is sent before the agent can be told anything.
        """
        wanted = self.spec.network
        ports = tuple(port for port in wanted.ingress_ports if port not in _AGENT_PORTS)
        return wanted.model_copy(
            update={"public_access": False, "ssh": False, "ingress_ports": ports}
        )

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
                await self.host.network.attach(self.spec.id, pid, self._shut)
            self.gate.let_pass()
            await restoring
            return record
        finally:
            for task in (reached, restoring):
                task.cancel()
            await asyncio.gather(reached, restoring, return_exceptions=True)

    async def _renew(self, record: BootRecord) -> None:
        """Make the agent that came back the agent of this boot."""
        spec = self.spec.model_copy(update={"env": {}, "cmd": None})
        document = json.loads(boot_document(spec, record.boot_id, record.token))
        address = str(self.host.network.address(self.spec.id))
        await tell(address, self.snapshot.boot.token, "renew", document)
