"""What programs inside read of their machine's size, where the kernel would tell the host's.

Four files of /proc and /sys are plain files of the node's, bound over the kernel's: they tell the
memory and the cores of the machine. The node brings what is in use up to date; without a node
they stay as they are, and nothing inside ever waits for it. A new content has the length of the
old one, so that a reader never meets half a line, and a snapshot can hold an open file.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bastide.node.cgroups import Usage
from bastide.node.machines.cores import listed

KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_PLACES = {
    "proc.meminfo": "/proc/meminfo",
    "proc.cpuinfo": "/proc/cpuinfo",
    "proc.stat": "/proc/stat",
    "sys.online": "/sys/devices/system/cpu/online",
}
_NONE = Usage(cpu_seconds=0.0, memory_bytes=0, pids=0)


@dataclass(frozen=True)
class Dimensions:
    """The files of one machine, in the directory of its boot."""

    directory: Path

    @property
    def binds(self) -> dict[str, Path]:
        """Where each file is seen inside: place → file."""
        return {place: self.directory / name for name, place in _PLACES.items()}

    def write(
        self, memory: int, cores: Sequence[int], usage: Usage = _NONE, age: float = 0.0
    ) -> None:
        """Tell `memory` bytes and these cores, and what `refresh` tells. Blocks briefly."""
        for name in _PLACES:
            (self.directory / name).touch(mode=0o644)
        _put(self.directory / "proc.cpuinfo", cpuinfo((_PROC / "cpuinfo").read_text(), cores))
        _put(self.directory / "sys.online", f"{listed(cores)}\n")
        self.refresh(memory, cores, usage, age)

    def refresh(self, memory: int, cores: Sequence[int], usage: Usage, age: float) -> None:
        """Tell what is in use now; `age` is seconds since the boot. Blocks briefly.

        Raises:
            FileNotFoundError: the files were not written, or are gone with their machine.
        """
        _put(self.directory / "proc.meminfo", meminfo(memory, usage))
        _put(self.directory / "proc.stat", stat(cores, usage.cpu_seconds, age, _began()))


def meminfo(memory: int, usage: Usage) -> str:
    """/proc/meminfo of a machine with `memory` bytes and no swap."""
    used = min(usage.memory_bytes, memory)
    cache = min(usage.cache_bytes, memory - used)
    values = {
        "MemTotal": memory,
        "MemFree": memory - used - cache,
        "MemAvailable": memory - used,
        "Buffers": 0,
        "Cached": cache,
        "SwapCached": 0,
        "Active": used,
        "Inactive": cache,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": used,
        "Mapped": 0,
        "Shmem": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SUnreclaim": 0,
    }
    return "".join(f"{name + ':':<16}{value // KIB:>8} kB\n" for name, value in values.items())


def cpuinfo(host: str, cores: Sequence[int]) -> str:
    """/proc/cpuinfo of the host, with these cores only."""
    blocks = host.strip().split("\n\n")
    shown = [block for block in blocks if _processor(block) in (*cores, None)]
    return "".join(f"{block}\n\n" for block in shown)


def stat(cores: Sequence[int], used: float, age: float, began: int) -> str:
    """/proc/stat: `used` seconds of processor time in `age` seconds; `began`: the host's boot."""
    busy = int(used * _TICKS) // len(cores)
    idle = max(0, int(age * _TICKS) - busy)
    count = len(cores)
    lines = [("cpu ", busy * count, idle * count), *((f"cpu{core}", busy, idle) for core in cores)]
    rest = ("intr 0", "ctxt 0", f"btime {began}", "processes 0", "procs_running 1",
            "procs_blocked 0", "softirq 0")  # fmt: skip
    times = (f"{name} {busy:>12} 0 0 {idle:>12} 0 0 0 0 0 0" for name, busy, idle in lines)
    return "\n".join((*times, *rest)) + "\n"


def _began() -> int:
    """When the host booted, in seconds since 1970: the ages of processes count from it.

    It is the `btime` of /proc/stat, without all else that is gathered to read it there.
    """
    return (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 10**9


def _processor(block: str) -> int | None:
    found = re.match(r"processor\s*:\s*(\d+)", block)
    return int(found[1]) if found else None


def _put(path: Path, content: str) -> None:
    """Write in place: what is bound inside is the file, not its name."""
    data = content.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        if os.fstat(descriptor).st_size != len(data):
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
