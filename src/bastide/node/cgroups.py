"""What the kernel counts for one machine, on cgroup v1, the hybrid layout and v2.

runc makes the cgroups and sets the limits; here they are read, machines are frozen and thawed
(without a process of the runtime, which would take longer than the kernel), and what is left of
dead machines is removed. The v2 part follows the kernel's documentation and is untested: the
machines this was written on have every controller on v1.
"""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_FREEZE_TIMEOUT = 5.0
_TURN = 0.0005
"""Seconds the kernel is given to stop a process before it is looked at again."""


@dataclass(frozen=True)
class Usage:
    """CPU time in seconds, memory in bytes (without what the kernel can drop), tasks.

    `cache_bytes`: what the kernel keeps of files beside that, and can drop.
    """

    cpu_seconds: float
    memory_bytes: int
    pids: int
    cache_bytes: int = 0


class Cgroups(ABC):
    """The cgroups of this node's machines: one of the machine's id, below `parent`."""

    def __init__(self, parent: str, root: Path = ROOT) -> None:
        self.parent = parent
        self.root = root

    def path(self, machine: str) -> str:
        """The machine's cgroup as the runtime is told it (`/bastide/ws_…`)."""
        return f"/{self.parent}/{machine}"

    @property
    @abstractmethod
    def limits_swap(self) -> bool:
        """Whether the kernel can hold a machine's memory back from the host's swap."""

    @property
    @abstractmethod
    def limits_cores(self) -> bool:
        """Whether the kernel can hold a machine to some of the cores."""

    @abstractmethod
    def cores(self, machine: str) -> str:
        """The cores a machine is held to, as the kernel writes them. Raises OSError."""

    @abstractmethod
    def usage(self, machine: str) -> Usage:
        """Use now. Raises OSError when the machine has no cgroup."""

    @abstractmethod
    async def freeze(self, machine: str) -> None:
        """Stop every process of the machine where it is; returns when all stand still.

        Raises:
            OSError: it has no cgroup, or the kernel did not manage within some seconds; then the
                machine goes on.
        """

    @abstractmethod
    def thaw(self, machine: str) -> None:
        """Let every process go on. Raises OSError when the machine has no cgroup."""

    async def _until(self, settled: Callable[[], bool], machine: str) -> None:
        """Look until it stands still; else it goes on. Raises TimeoutError, which is an OSError."""
        try:
            async with asyncio.timeout(_FREEZE_TIMEOUT):
                while not settled():  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(_TURN)
        except BaseException as error:
            with suppress(OSError):  # it may have ended meanwhile
                self.thaw(machine)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the processes of {machine} do not stand still") from None
            raise

    @abstractmethod
    def oom_kills(self, machine: str) -> int:
        """How many processes the kernel has killed for want of memory; 0 when it cannot tell."""

    @abstractmethod
    def _directories(self) -> list[Path]:
        """Where the machines' cgroups are, one directory per hierarchy."""

    def known(self) -> set[str]:
        """Ids that have a cgroup, alive or left over."""
        return {
            path.name
            for directory in self._directories()
            if directory.is_dir()
            for path in directory.iterdir()
            if path.is_dir()
        }

    def processes(self, machine: str) -> set[int]:
        """Host ids of every process in the machine's cgroups."""
        found: set[int] = set()
        for directory in self._directories():
            with suppress(OSError):
                lines = (directory / machine / "cgroup.procs").read_text().split()
                found.update(int(line) for line in lines)
        return found - {0}

    def remove(self, machine: str) -> int:
        """Remove what is left of a dead machine's cgroups; how many directories went."""
        removed = 0
        for directory in self._directories():
            tree = directory / machine
            if not tree.is_dir():
                continue
            nested = [path for path in tree.rglob("*") if path.is_dir()]
            for path in [*sorted(nested, key=lambda p: len(p.parts), reverse=True), tree]:
                with suppress(OSError):  # busy: a process is still leaving, the next sweep gets it
                    path.rmdir()
                    removed += 1
        return removed

    def remove_parent(self) -> None:
        """Remove the parent cgroups themselves, when they are empty."""
        for directory in self._directories():
            with suppress(OSError):
                directory.rmdir()


class CgroupsV1(Cgroups):
    """One hierarchy per controller (v1 and hybrid)."""

    def _directories(self) -> list[Path]:
        return [
            path / self.parent
            for path in self.root.iterdir()
            if path.is_dir() and not path.is_symlink()
        ]

    @property
    def limits_swap(self) -> bool:
        """Only a kernel with swap accounting has the file."""
        return (self.root / "memory" / "memory.memsw.limit_in_bytes").exists()

    @property
    def limits_cores(self) -> bool:
        """Where the hierarchy of cpusets is mounted."""
        return (self.root / "cpuset" / "cpuset.cpus").exists()

    def cores(self, machine: str) -> str:
        """From `cpuset.cpus`."""
        return self._file("cpuset", machine, "cpuset.cpus").read_text()

    def usage(self, machine: str) -> Usage:
        """Use now, from cpuacct, memory and pids."""
        memory = self._file("memory", machine, "")
        used = _number(memory / "memory.usage_in_bytes")
        idle = _keys(memory / "memory.stat").get("total_inactive_file", 0)
        return Usage(
            cpu_seconds=_number(self._file("cpuacct", machine, "cpuacct.usage")) / 1e9,
            memory_bytes=max(0, used - idle),
            pids=_number(self._file("pids", machine, "pids.current")),
            cache_bytes=min(idle, used),
        )

    async def freeze(self, machine: str) -> None:
        """By `freezer.state`. A process that forks meanwhile can keep it from settling: so anew."""
        state = self._file("freezer", machine, "freezer.state")
        tries = 0

        def settled() -> bool:
            nonlocal tries
            tries += 1
            if tries % 2:
                state.write_text("FROZEN")
            frozen = state.read_text().strip() == "FROZEN"
            if not frozen and tries % 2 == 0:  # looked at twice: another try
                state.write_text("THAWED")
            return frozen

        await self._until(settled, machine)

    def thaw(self, machine: str) -> None:
        """By `freezer.state`."""
        self._file("freezer", machine, "freezer.state").write_text("THAWED")

    def oom_kills(self, machine: str) -> int:
        """From `memory.oom_control`."""
        with suppress(OSError):
            return _keys(self._file("memory", machine, "memory.oom_control")).get("oom_kill", 0)
        return 0

    def _file(self, controller: str, machine: str, name: str) -> Path:
        return self.root / controller / self.parent / machine / name


class CgroupsV2(Cgroups):
    """One hierarchy for all controllers."""

    def _directories(self) -> list[Path]:
        return [self.root / self.parent]

    @property
    def limits_swap(self) -> bool:
        """Always there where there is swap."""
        return True

    @property
    def limits_cores(self) -> bool:
        """Where the controller is not taken by something else."""
        with suppress(OSError):
            return "cpuset" in (self.root / "cgroup.controllers").read_text().split()
        return False

    def cores(self, machine: str) -> str:
        """From `cpuset.cpus`."""
        return (self.root / self.parent / machine / "cpuset.cpus").read_text()

    def usage(self, machine: str) -> Usage:
        """Use now, from cpu.stat, memory.current and pids.current."""
        directory = self.root / self.parent / machine
        used = _number(directory / "memory.current")
        idle = _keys(directory / "memory.stat").get("inactive_file", 0)
        return Usage(
            cpu_seconds=_keys(directory / "cpu.stat").get("usage_usec", 0) / 1e6,
            memory_bytes=max(0, used - idle),
            pids=_number(directory / "pids.current"),
            cache_bytes=min(idle, used),
        )

    async def freeze(self, machine: str) -> None:
        """By `cgroup.freeze`; `cgroup.events` tells when it is done."""
        directory = self.root / self.parent / machine
        (directory / "cgroup.freeze").write_text("1")
        await self._until(lambda: _keys(directory / "cgroup.events").get("frozen") == 1, machine)

    def thaw(self, machine: str) -> None:
        """By `cgroup.freeze`."""
        (self.root / self.parent / machine / "cgroup.freeze").write_text("0")

    def oom_kills(self, machine: str) -> int:
        """From `memory.events`."""
        with suppress(OSError):
            path = self.root / self.parent / machine / "memory.events"
            return _keys(path).get("oom_kill", 0)
        return 0


def detect(parent: str, root: Path = ROOT) -> Cgroups:
    """The layout of this host: v2 where it holds the memory controller, else v1."""
    with suppress(OSError):
        if "memory" in (root / "cgroup.controllers").read_text().split():
            return CgroupsV2(parent, root)
    return CgroupsV1(parent, root)


def kill_all(cgroups: Cgroups, machine: str) -> int:
    """Kill every process in a machine's cgroups; how many were there."""
    processes = cgroups.processes(machine)
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(processes)


def _number(path: Path) -> int:
    return int(path.read_text())


def _keys(path: Path) -> dict[str, int]:
    pairs = (line.split(None, 1) for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
