"""The OCI configuration of a container machine (`config.json`). It holds no secret."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bastide.domain.machine import BUNDLE_MOUNT, Resources
from bastide.node.machines import seccomp
from bastide.node.machines.idrange import SIZE, IdRange

MIB = 1024 * 1024
_PERIOD_US = 100_000
_MOST_FILES = 1_048_576
_DEFAULT_FILES = 65_536
_RUN_BYTES = 16 * MIB

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

_CAPABILITY_SETS = ("bounding", "effective", "permitted")

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/sys/fs/cgroup",  # on cgroup v1 a tmpfs that runc leaves writable, whatever its mount says
)

_NAMESPACES = ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")


@dataclass(frozen=True)
class Container:
    """What goes into the configuration of one boot. Paths are the host's.

    `cores`: those it is held to, as the kernel lists them, empty for all. `files`: plain files
    seen in other places, place → file.
    """

    hostname: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    rootfs: Path
    bundle: Path
    resolv_conf: Path
    hosts: Path
    hostname_file: Path
    ids: IdRange
    resources: Resources
    cgroup: str
    limits_swap: bool
    criu: Path
    cores: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)


def configuration(container: Container) -> dict[str, Any]:
    """The whole `config.json`."""
    return {
        "ociVersion": "1.2.0",
        "annotations": {"org.criu.config": str(container.criu)},
        "hostname": container.hostname,
        "root": {"path": str(container.rootfs), "readonly": False},
        "process": _process(container),
        "mounts": _mounts(container),
        "linux": {
            "namespaces": [{"type": name} for name in _NAMESPACES],
            "uidMappings": [_mapping(container.ids)],
            "gidMappings": [_mapping(container.ids)],
            "cgroupsPath": container.cgroup,
            "resources": _resources(container),
            "seccomp": _seccomp(),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "rootfsPropagation": "private",
            # everyone may ping without a raw socket, and bind any port of their own address
            "sysctl": {
                "net.ipv4.ping_group_range": "0 65535",
                "net.ipv4.ip_unprivileged_port_start": "0",
            },
        },
    }


@lru_cache(maxsize=1)
def _seccomp() -> dict[str, Any]:
    return seccomp.profile()


def _process(container: Container) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "umask": 0o022},
        "args": list(container.argv),
        "env": [f"{name}={value}" for name, value in container.env.items()],
        "cwd": "/",
        "capabilities": {name: list(CAPABILITIES) for name in _CAPABILITY_SETS},
        "noNewPrivileges": True,
        # When the host itself runs short, a workspace goes before a daemon. The agent gives its
        # commands more, so that they go before it and process 1.
        "oomScoreAdj": 100,
        "rlimits": [
            _limit("RLIMIT_NOFILE", resource.RLIMIT_NOFILE, _DEFAULT_FILES, _MOST_FILES),
            _limit("RLIMIT_CORE", resource.RLIMIT_CORE, 0, resource.RLIM_INFINITY),
        ],
    }


def _limit(name: str, number: int, soft: int, hard: int) -> dict[str, Any]:
    """A limit no higher than the node's own: without CAP_SYS_RESOURCE none can be raised."""
    ours = resource.getrlimit(number)[1]
    if ours != resource.RLIM_INFINITY:
        hard = ours if hard == resource.RLIM_INFINITY else min(hard, ours)
    if hard == resource.RLIM_INFINITY:
        return {"type": name, "soft": soft, "hard": 2**64 - 1}
    return {"type": name, "soft": min(soft, hard), "hard": hard}


def _mapping(ids: IdRange) -> dict[str, int]:
    return {"containerID": 0, "hostID": ids.first, "size": SIZE}


def cpu_share(cpus: float) -> tuple[int, int]:
    """Processor time and the period in which it may be used, in microseconds."""
    return int(cpus * _PERIOD_US), _PERIOD_US


def _resources(container: Container) -> dict[str, Any]:
    resources = container.resources
    quota, period = cpu_share(resources.cpus)
    memory = {"limit": resources.memory_mb * MIB}
    if container.limits_swap:
        memory["swap"] = memory["limit"]  # of memory and swap together: so no swap
    cpu: dict[str, Any] = {"quota": quota, "period": period}
    if container.cores:
        cpu["cpus"] = container.cores
    return {
        "devices": [{"allow": False, "access": "rwm"}],
        "cpu": cpu,
        "memory": memory,
        "pids": {"limit": resources.pids},
    }


def _mounts(container: Container) -> list[dict[str, Any]]:
    memory = container.resources.memory_mb * MIB
    quiet = ["nosuid", "noexec", "nodev"]
    run = min(_RUN_BYTES, memory // 8)
    return [
        mount("proc", "/proc", "proc", *quiet),
        mount("tmpfs", "/dev", "tmpfs", "nosuid", "mode=755", "size=64k", "nr_inodes=256"),
        mount(
            "devpts", "/dev/pts", "devpts", "nosuid", "noexec",
            "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
        ),
        mount("shm", "/dev/shm", "tmpfs", *quiet, "mode=1777", f"size={memory // 2}"),  # noqa: S108
        mount("mqueue", "/dev/mqueue", "mqueue", *quiet),
        mount("sysfs", "/sys", "sysfs", *quiet, "ro"),
        mount("cgroup", "/sys/fs/cgroup", "cgroup", *quiet, "relatime", "ro"),
        mount("tmpfs", "/run", "tmpfs", "nosuid", "nodev", "mode=755", f"size={run}"),
        bind(container.bundle, BUNDLE_MOUNT, "nosuid", "nodev"),
        bind(container.resolv_conf, "/etc/resolv.conf", *quiet),
        bind(container.hosts, "/etc/hosts", *quiet),
        bind(container.hostname_file, "/etc/hostname", *quiet),
        *(bind(file, place, *quiet) for place, file in container.files.items()),
    ]  # fmt: skip


def mount(source: str, destination: str, kind: str, *options: str) -> dict[str, Any]:
    """A mount of a configuration."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def bind(source: Path, destination: str, *options: str) -> dict[str, Any]:
    """A read-only view of `source`."""
    return mount(str(source), destination, "bind", "bind", "ro", "rprivate", *options)
