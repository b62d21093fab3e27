"""Where the emulator of one machine runs: nothing around it that it has no use for.

A guest that breaks out of its virtual devices is a process with an id that owns nothing, in a
read-only root that holds the emulator and the guest's kernel, with no network interface, no
capability, few system calls, and exactly the open files the node gave it. The tap, the sockets
and the files of the workspace come as descriptors, so no path of the host is in there.

It is described as a container for runc, which the node has anyway: it makes the namespaces and
limits, keeps the state, and removes both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bastide.node.machines import oci, seccomp
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.microvm.program import BINARY, FIRMWARE, INITRD, MODULES, VMLINUX
from bastide.node.machines.microvm.qemu import Accelerator

MIB = 1024 * 1024
FIRST = 3
"""Number of the first descriptor the emulator is given beside its standard streams."""

OVERHEAD_MB = {Accelerator.KVM: 96, Accelerator.TCG: 256}
"""Memory of the emulator itself, beyond the guest's; emulation keeps what it has translated."""

_NAMESPACES = ("pid", "mount", "network", "ipc", "uts", "cgroup")
_THREADS = 64
_FILES = 128
_KVM = Path("/dev/kvm")
_NO_CAPABILITIES: dict[str, list[str]] = {
    name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
}


@dataclass(frozen=True)
class Jail:
    """One jail. Paths are the host's; `home` is the emulator's root, `disk_bytes` the quota."""

    home: Path
    vmlinux: Path
    initrd: Path
    ids: IdRange
    cpus: float
    memory_mb: int
    disk_bytes: int
    accelerator: Accelerator
    cgroup: str
    limits_swap: bool

    def configuration(self, argv: Sequence[str]) -> dict[str, Any]:
        """The `config.json` that runs `argv` in it."""
        uid = self.ids.first
        devices = [_kvm(uid)] if self.accelerator is Accelerator.KVM else []
        return {
            "ociVersion": "1.2.0",
            "root": {"path": str(self.home), "readonly": True},
            "process": {
                "terminal": False,
                "user": {"uid": uid, "gid": uid, "umask": 0o077},
                "args": [f"/{BINARY}", "-L", f"/{FIRMWARE}", *argv],
                # one heap for all threads: what is freed by one can be used by another
                "env": ["MALLOC_ARENA_MAX=2", f"QEMU_MODULE_DIR=/{MODULES}"],
                "cwd": "/",
                "capabilities": _NO_CAPABILITIES,
                "noNewPrivileges": True,
                "oomScoreAdj": 100,
                "rlimits": self._rlimits(),
            },
            "mounts": [
                oci.mount("proc", "/proc", "proc", "nosuid", "noexec", "nodev", "ro"),
                oci.mount("tmpfs", "/dev", "tmpfs", "nosuid", "noexec", "mode=755", "size=64k"),
                oci.bind(self.vmlinux, f"/{VMLINUX}", "nosuid", "noexec", "nodev"),
                oci.bind(self.initrd, f"/{INITRD}", "nosuid", "noexec", "nodev"),
            ],
            "linux": {
                "namespaces": [{"type": name} for name in _NAMESPACES],
                "cgroupsPath": self.cgroup,
                "resources": self._resources(devices),
                "devices": devices,
                "seccomp": seccomp.profile(),
                "maskedPaths": list(oci.MASKED),
                "readonlyPaths": list(oci.READ_ONLY),
                "rootfsPropagation": "private",
            },
        }

    def _rlimits(self) -> list[dict[str, Any]]:
        # it writes to the disk and to the file of a snapshot, and nowhere beyond
        largest = max(self.disk_bytes, 2 * self.memory_mb * MIB + 64 * MIB)
        bounds = {
            "RLIMIT_NOFILE": _FILES,
            "RLIMIT_NPROC": self._threads,
            "RLIMIT_FSIZE": largest,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
        }
        return [{"type": name, "soft": most, "hard": most} for name, most in bounds.items()]

    @property
    def _threads(self) -> int:
        return _THREADS + math.ceil(self.cpus)

    def _resources(self, devices: list[dict[str, Any]]) -> dict[str, Any]:
        quota, period = oci.cpu_share(self.cpus)
        limit = ceiling_mb(self.memory_mb, self.accelerator) * MIB
        memory = {"limit": limit, **({"swap": limit} if self.limits_swap else {})}
        allowed = [
            {"allow": True, "type": "c", "major": each["major"], "minor": each["minor"],
             "access": "rw"}
            for each in devices
        ]  # fmt: skip
        return {
            "devices": [{"allow": False, "access": "rwm"}, *allowed],
            "cpu": {"quota": quota, "period": period},
            "memory": memory,
            "pids": {"limit": self._threads},
        }


def ceiling_mb(memory_mb: int, accelerator: Accelerator) -> int:
    """MiB that an emulator may take in all: the guest's, its own, and the host's tables of both."""
    return memory_mb + OVERHEAD_MB[accelerator] + memory_mb // 256


def _kvm(uid: int) -> dict[str, Any]:
    """A device file of its own for the emulator, which nobody else could open."""
    number = _KVM.stat().st_rdev
    return {
        "path": str(_KVM), "type": "c", "major": os.major(number), "minor": os.minor(number),
        "fileMode": 0o600, "uid": uid, "gid": uid,
    }  # fmt: skip
