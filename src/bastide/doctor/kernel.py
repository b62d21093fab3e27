"""What the kernel must have."""

from __future__ import annotations

import os
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from bastide.doctor.finding import Finding, fail, ok, warn
from bastide.node import inotify
from bastide.node.cgroups import CgroupsV2, detect
from bastide.node.kernel import clone_mount, set_mount

OLDEST = (5, 19)
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
FILESYSTEMS = ("erofs", "ext4", "overlay")
CONTROLLERS = ("cpu", "memory", "pids")
CONTROLLERS_V1 = (*CONTROLLERS, "cpuacct", "devices", "freezer")
LEAST_MEMORY_MB = 1024
NEW_KERNEL = "boot a kernel with it; Debian 12's own has it"


def root() -> Finding:
    """Whether this is root with the capabilities that matter."""
    if os.geteuid() != 0:
        return fail("root", "this is not root", "run it with sudo")
    return ok("root", "running as root")


def version() -> Finding:
    """Whether the kernel is new enough for overlays on id-mapped layers."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        return fail(
            "kernel", f"{release} is too old", "boot Linux 5.19 or newer (Debian 12 has 6.1)"
        )
    return ok("kernel", release)


def namespaces() -> Finding:
    """Whether every kind of namespace exists and user namespaces may be made."""
    missing = [name for name in NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    if missing:
        return fail("namespaces", f"the kernel has no {', '.join(missing)} namespaces", NEW_KERNEL)
    limit = _number(Path("/proc/sys/user/max_user_namespaces"))
    if limit is not None and limit < 1:
        return fail(
            "namespaces",
            "user namespaces are switched off",
            "sysctl -w user.max_user_namespaces=100000",
        )
    return ok("namespaces", ", ".join(NAMESPACES))


def file_watches() -> Finding:
    """Whether there are inotify instances for many workspaces."""
    missing = inotify.shortfall()
    if missing:
        return warn(
            "file watches",
            "the host's inotify limits are too low for many workspaces",
            "start bastide, which raises them, or: sysctl -w " + " ".join(missing),
        )
    return ok("file watches", "as many as each workspace's memory allows")


def seccomp() -> Finding:
    """Whether system calls can be filtered."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists():
        return fail("seccomp", "the kernel cannot filter system calls", NEW_KERNEL)
    return ok("seccomp", "system calls can be filtered")


def filesystems() -> Finding:
    """Whether images, disks and overlays can be mounted."""
    known = Path("/proc/filesystems").read_text().split()
    for name in FILESYSTEMS:
        if name not in known:
            # It may be a module that was not needed yet.
            subprocess.run(["modprobe", name], check=False, capture_output=True)
    known = Path("/proc/filesystems").read_text().split()
    missing = [name for name in FILESYSTEMS if name not in known]
    if missing:
        return fail("file systems", f"the kernel has no {', '.join(missing)}", NEW_KERNEL)
    return ok("file systems", ", ".join(FILESYSTEMS))


def idmapped_mounts() -> Finding:
    """Whether a mount can be id-mapped, tried on the root file system."""
    if os.geteuid() != 0:
        return warn("id-mapped mounts", "not tried", "run it with sudo")
    # The first line tells that the namespace is there; it stays until its input is closed.
    holder = subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        if holder.stdout is None or not holder.stdout.readline():
            return fail("id-mapped mounts", "no user namespace could be made", NEW_KERNEL)
        for kind in ("uid", "gid"):
            Path(f"/proc/{holder.pid}/{kind}_map").write_text("0 100000 65536\n")
        namespace = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        mount = -1
        try:
            mount = clone_mount(Path("/"))
            set_mount(mount, 0, namespace)
        finally:
            os.close(namespace)
            if mount >= 0:
                os.close(mount)
    except OSError as error:
        return fail(
            "id-mapped mounts",
            f"the root file system cannot be id-mapped: {error}",
            "put state_dir on ext4, xfs or btrfs, with Linux 5.19 or newer",
        )
    finally:
        holder.communicate()
    return ok("id-mapped mounts", "work")


def loop_devices() -> Finding:
    """Whether a disk file can be mounted."""
    if not Path("/dev/loop-control").exists():
        subprocess.run(["modprobe", "loop"], check=False, capture_output=True)
    if not Path("/dev/loop-control").exists():
        return fail("loop devices", "there is no /dev/loop-control", "modprobe loop")
    return ok("loop devices", "there")


def cgroups() -> Finding:
    """Whether the layout of cgroups is known and has the controllers that limit a workspace."""
    found = detect("bastide")
    if isinstance(found, CgroupsV2):
        there = (found.root / "cgroup.controllers").read_text().split()
        layout, needed = "version 2", set(CONTROLLERS)
    else:
        there = [path.name for path in found.root.iterdir() if path.is_dir()]
        layout, needed = "version 1", set(CONTROLLERS_V1)
        if (found.root / "unified").exists():
            layout = "hybrid (controllers on version 1)"
    missing = sorted(needed.difference(there))
    if missing:
        return fail(
            "cgroups",
            f"{layout} without {', '.join(missing)}",
            "boot with cgroup_enable=memory, or mount the controllers",
        )
    return ok("cgroups", f"{layout}: {', '.join(sorted(needed))}")


def memory() -> Finding:
    """Whether a few workspaces fit."""
    text = Path("/proc/meminfo").read_text()
    total = int(text.split("MemTotal:")[1].split()[0]) // 1024
    if total < LEAST_MEMORY_MB:
        return warn("memory", f"{total} MiB", "a few workspaces need 1 GiB or more")
    return ok("memory", f"{total} MiB")


def clock() -> Finding:
    """Whether the clock can be right: tokens are checked against it."""
    built = Path(__file__).stat().st_mtime
    shown = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    # A day of grace: files may have been unpacked with another machine's time.
    if time.time() < built - 86400:
        return fail("clock", f"it is before this program was installed: {shown}", "set the clock")
    return ok("clock", shown)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
