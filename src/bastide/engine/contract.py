"""The Engine contract: what the control plane may ask of whatever runs machines."""

# ruff: noqa: N818 - these read as states, which they are

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable

from bastide.domain.machine import (
    Capabilities,
    ImageInfo,
    MachineEvent,
    MachineSpec,
    MachineStats,
    MachineStatus,
    RegistryAuth,
    Resources,
    Snapshot,
    SnapshotAfter,
)
from bastide.domain.network import BlockedLog, NetworkPolicy


class EngineError(Exception):
    """An engine refused or failed. `code` is machine-readable, the text says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class EngineUnavailable(EngineError):
    """The engine cannot be reached now; the same call may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__("VM_UNAVAILABLE", message)


class Unsupported(EngineError):
    """This engine cannot do that; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__("unsupported", message)


class UnknownMachine(EngineError):
    """The engine has no machine of that id."""

    def __init__(self, message: str) -> None:
        super().__init__("not_found", message)


class Engine(ABC):
    """Runs machines, one per workspace id.

    Every operation is idempotent by workspace id, and `poll()` is the truth: the control plane
    keeps what is wanted and asks here what is. An operation that cannot be done raises
    `Unsupported` before anything changes.

    Must be implemented: `capabilities`, `images`, `create`, `start`, `stop`, `kill`, `delete`,
    `apply_network`, `status`, `poll`, `stats`, `console`, `events`, `close`.
    May be implemented: `pull`, `blocked`, `pause`, `resume`, `snapshot`, `restore`,
    `last_snapshot`, `resize`.

    All raise `EngineUnavailable` when the engine cannot be reached and `EngineError` when it
    refuses; those that name a machine raise `UnknownMachine` if it does not exist, except
    `delete`, which then has nothing to do.
    """

    @abstractmethod
    async def capabilities(self) -> Capabilities:
        """What this engine can do, and why not the rest."""

    @abstractmethod
    async def images(self) -> list[ImageInfo]:
        """The images it can boot or build."""

    @abstractmethod
    async def create(self, spec: MachineSpec) -> MachineStatus:
        """Reserve address and disk for `spec.id`; does not boot. Repeating is harmless."""

    @abstractmethod
    async def start(self, spec: MachineSpec) -> MachineStatus:
        """Boot the machine and return once its agent answers. A running one is left as it is."""

    @abstractmethod
    async def stop(self, machine: str, grace: float) -> MachineStatus:
        """End it: asked nicely, then after `grace` seconds firmly. The disk is kept."""

    @abstractmethod
    async def kill(self, machine: str) -> MachineStatus:
        """End it at once. The disk is kept."""

    @abstractmethod
    async def delete(self, machine: str, *, keep_snapshot: bool = False) -> None:
        """Remove machine, disk, address and rules, in whatever state they are.

        Its last snapshot goes with it, unless it is to be kept: then it can be restored.
        """

    @abstractmethod
    async def apply_network(self, machine: str, policy: NetworkPolicy) -> MachineStatus:
        """Put a policy in force, on a running machine in one transaction."""

    @abstractmethod
    async def status(self, machine: str) -> MachineStatus:
        """What one machine is doing now."""

    @abstractmethod
    async def poll(self) -> list[MachineStatus]:
        """What every machine is doing now: the truth."""

    @abstractmethod
    async def stats(self, machine: str) -> MachineStats:
        """Use of a machine now; of one that does not run, its disk's alone."""

    @abstractmethod
    async def console(self, machine: str, limit: int) -> str:
        """The last `limit` bytes of its boot output."""

    @abstractmethod
    def events(self) -> AsyncIterator[MachineEvent]:
        """What happens to machines, as it happens; ends when the engine goes away."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""

    async def pull(
        self, reference: str, auth: RegistryAuth | None, tell: Callable[[str], None]
    ) -> ImageInfo:
        """Have an image: from a registry, or built; `tell` hears how far it is.

        A reference is looked up each time, and with the credentials of whoever asks.
        """
        del auth, tell
        raise Unsupported(f"this engine cannot fetch {reference}")

    async def blocked(self, machine: str) -> BlockedLog:
        """What the machine's firewall refused it lately."""
        raise Unsupported(f"this engine keeps no log of what {machine} was refused")

    async def pause(self, machine: str) -> MachineStatus:
        """Freeze every process, memory kept."""
        raise Unsupported(f"{machine} cannot be paused on this engine")

    async def resume(self, machine: str) -> MachineStatus:
        """Let a paused machine go on."""
        raise Unsupported(f"{machine} cannot be resumed on this engine")

    async def snapshot(self, machine: str, after: SnapshotAfter | None) -> MachineStatus:
        """Capture memory and disk of one moment, in the place of the last snapshot.

        Without `after` the machine is afterwards what it was. One that fails leaves the machine
        and the last snapshot as they were.
        """
        del after
        raise Unsupported(f"{machine} cannot be captured on this engine")

    async def restore(self, spec: MachineSpec) -> MachineStatus:
        """Bring memory and disk of the last snapshot back, whatever the machine is now.

        Also when the machine was deleted with `keep_snapshot`. Limits, policy and access are
        those of `spec`. `EngineError("no_snapshot")` when there is none.
        """
        raise Unsupported(f"{spec.id} cannot be restored on this engine")

    async def last_snapshot(self, machine: str) -> Snapshot | None:
        """The last snapshot of a machine, also of one that was deleted with `keep_snapshot`."""
        del machine
        return None

    async def resize(self, machine: str, resources: Resources) -> MachineStatus:
        """Give a running machine other limits of processor and memory, without a new boot.

        A larger disk counts from the next boot. `EngineError("memory_in_use")`, with nothing
        changed, when it uses more memory than it would have.
        """
        del resources
        raise Unsupported(f"{machine} cannot be resized while it runs on this engine")
