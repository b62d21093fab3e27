"""One machine known to the node."""

from __future__ import annotations

import asyncio
import signal

from bastide.domain.machine import MachineSpec, MachineState, RuntimeAccess, SshAccess
from bastide.node.errors import Conflict, NotFound
from bastide.node.machines.machine import Machine
from bastide.node.store import MachineRecord


class Entry:
    """One machine known here: its record, what runs it, and its turn-taking."""

    def __init__(self, record: MachineRecord, machine: Machine) -> None:
        self.record = record
        self.machine = machine
        self.lock = asyncio.Lock()
        self.passing: MachineState | None = None
        self.gone = False
        self.trouble: str | None = None  # with its disk, while it runs

    @property
    def state(self) -> MachineState:
        """What it is doing now."""
        if self.passing is not None:
            return self.passing
        if self.machine.boot_record is not None:
            return MachineState.PAUSED if self.machine.paused else MachineState.RUNNING
        return MachineState.FAILED if self.record.error else MachineState.STOPPED

    def interrupt(self) -> None:
        """End the process that a longer operation may be waiting for."""
        process = self.machine.process
        if process is not None and self.lock.locked():
            process.send(signal.SIGKILL)

    def check_there(self) -> None:
        """Refuse to work on a machine that was deleted while one waited for its turn.

        Raises:
            NotFound: it was.
        """
        if self.gone:
            raise NotFound(f"{self.record.spec.id} was deleted meanwhile")

    def check_runs(self) -> None:
        """Refuse what only a running machine can do.

        Raises:
            NotFound, Conflict: it is gone, or does not run.
        """
        self.check_there()
        if self.machine.boot_record is None:
            raise Conflict(f"{self.record.spec.id} does not run: start it first")

    def check_image(self, spec: MachineSpec) -> None:
        """Refuse another image than that of the disk.

        Raises:
            Conflict: names the one it has.
        """
        if self.record.spec.image != spec.image:
            raise Conflict(
                f"the disk of {spec.id} was made for the image {self.record.spec.image}: "
                "delete the workspace to use another"
            )


def without_secrets(spec: MachineSpec) -> MachineSpec:
    """What may lie on a disk: no token or SSH key, and no environment, which often holds some."""
    access, ssh = RuntimeAccess(enabled=spec.runtime.enabled), SshAccess(enabled=spec.ssh.enabled)
    return spec.model_copy(update={"runtime": access, "ssh": ssh, "env": {}})
