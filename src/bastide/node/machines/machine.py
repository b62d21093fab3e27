"""The Machine contract: one boot of a workspace, whatever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from bastide.domain.machine import MachineSpec, MachineStats, Resources
from bastide.domain.network import NetworkPolicy
from bastide.node.machines.idrange import IdRange
from bastide.node.process import Ended, Process
from bastide.node.snapshots import Draft, SnapshotRecord
from bastide.node.store import BootRecord


class Machine(ABC):
    """One machine of this node; one class per tier.

    Must be implemented: everything here but `refresh`, `disk` and `hold_room`. The caller sees to
    it that operations on one machine do not overlap (`kill` of a process may come at any time,
    through `process`). A failed `boot` undoes its own work; `clean` may be called in any state and
    any number of times.
    `tests/contract/machine.py` is the suite every tier inherits.
    """

    tier: str

    def __init__(self, machine: str) -> None:
        self.id = machine
        self.process: Process | None = None
        self.boot_record: BootRecord | None = None
        self.paused = False

    @abstractmethod
    async def boot(self, spec: MachineSpec, digest: str, ids: IdRange) -> BootRecord:
        """Boot from the image `digest` and the machine's disk; returns when its agent is ready.

        Raises:
            BootFailed: with the last lines the machine printed in `details["output"]`.
            ImageUnavailable, NotReady, NoSpace: what it needs is not there.
        """

    @abstractmethod
    async def adopt(self) -> BootRecord | None:
        """Take up a machine that an earlier node booted; None when it does not run any more."""

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """Ask process 1 to end, and after `grace` seconds end it. Returns when it is gone."""

    @abstractmethod
    async def kill(self) -> None:
        """End it at once. Returns when it is gone."""

    @abstractmethod
    async def pause(self) -> None:
        """Freeze every process of it."""

    @abstractmethod
    async def resume(self) -> None:
        """Let every process go on."""

    @abstractmethod
    async def resize(self, resources: Resources) -> None:
        """Other limits of processor and memory for the running machine; the disk is left alone.

        Raises:
            MemoryInUse: it uses more memory than that; nothing was changed.
            Unsupported: this tier needs another boot.
        """

    @abstractmethod
    async def relink(self, policy: NetworkPolicy) -> None:
        """Give the running machine its network link again, if it has lost it.

        Raises:
            Conflict: it does not run.
        """

    @abstractmethod
    def check_captures(self) -> None:
        """Refuse snapshots where there are none.

        Raises:
            Unsupported, NotReady: why.
        """

    @abstractmethod
    async def capture(self, draft: Draft, spec: MachineSpec, *, ending: bool) -> None:
        """Write memory and disk of one moment to the places of `draft`; frozen afterwards.

        With `ending` it will never go on: its connections are cut off first, so that not one byte
        is acknowledged that the snapshot does not hold.

        Raises:
            Unsupported: this tier or host cannot.
            BootFailed, NoSpace: it failed; the machine is as it was before.
        """

    @abstractmethod
    async def revive(self, spec: MachineSpec, snapshot: SnapshotRecord, ids: IdRange) -> BootRecord:
        """Boot from a snapshot and the disk of that moment; returns when its agent is renewed.

        Raises:
            Unsupported: this tier or host cannot.
            BootFailed, ImageUnavailable, NotReady: it does not come back; nothing is left of it.
        """

    def refresh(self, spec: MachineSpec) -> None:  # noqa: B027 - nothing to do for most
        """Tell programs inside what the machine uses now, where they cannot see it by themselves.

        Blocks briefly; never fails. A tier whose machines have a kernel of their own leaves it.
        """

    @property
    def disk(self) -> Path | None:
        """Where its disk is mounted on the host; None: its own kernel has it."""
        return None

    def hold_room(self, *, hold: bool) -> None:  # noqa: B027 - a kernel of its own waits for room
        """Take what is free on its disk, or give it back; see `bastide.node.shortage`. Blocks."""

    @abstractmethod
    def stats(self, spec: MachineSpec) -> MachineStats:
        """Use now. Blocks briefly.

        Raises:
            Conflict: it does not run.
        """

    @abstractmethod
    def oom_kills(self) -> int:
        """Processes the kernel ended for want of memory during this boot; ask before `clean`."""

    async def outcome(self, ended: Ended) -> Ended:
        """How the machine ended, whose process ended like this; ask before `clean`."""
        return ended

    async def let_go(self) -> None:
        """Stop watching; the machine goes on."""
        if self.process is not None:
            self.process.forget()

    @abstractmethod
    def console(self, limit: int) -> bytes:
        """The last `limit` bytes of its boot output."""

    @abstractmethod
    async def clean(self) -> None:
        """Remove all that this boot made on the host; the disk file stays."""
