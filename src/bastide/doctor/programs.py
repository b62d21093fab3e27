"""What must be installed and prepared."""

from __future__ import annotations

import pwd
import shutil
import sys
from pathlib import Path

from bastide.doctor.finding import Finding, fail, ok, warn
from bastide.domain.image import RECIPES
from bastide.node.images.packing import read_manifest
from bastide.node.machines.microvm.hardware import known_hardware
from bastide.node.machines.microvm.kernel import find_kernel
from bastide.node.machines.microvm.program import HOME as QEMU
from bastide.node.machines.microvm.program import read_version as read_qemu
from bastide.node.machines.runc import CURRENT, FLOOR, read_version
from bastide.settings import Settings

# The program and the Debian package that has it.
PROGRAMS = {
    "haproxy": "haproxy",
    "ip": "iproute2",
    "mkfs.erofs": "erofs-utils",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nft": "nftables",
    "patchelf": "patchelf",
    "rg": "ripgrep",
    "rsync": "rsync",
    "scp": "openssh-client",
    "sshd": "openssh-server",
    "tini-static": "tini",
    "unshare": "util-linux",
    "zstd": "zstd",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def python() -> Finding:
    """Which Python runs this; one that is too old could not have."""
    return ok("python", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def debian() -> Finding:
    """Whether the programs of Debian that are run are there."""
    missing = sorted(
        package for program, package in PROGRAMS.items() if shutil.which(program, path=PATH) is None
    )
    if missing:
        return fail(
            "programs",
            f"missing: {', '.join(missing)}",
            f"apt-get install --no-install-recommends {' '.join(missing)} (script/up does it)",
        )
    return ok("programs", ", ".join(sorted(PROGRAMS)))


def runtime(settings: Settings) -> Finding:
    """Whether the container runtime is there and safe."""
    found = read_version(settings.state_dir / "runtime" / CURRENT / "runc")
    if found is None:
        return fail("container runtime", "not there", "bastide prepare")
    if not found.safe:
        return fail("container runtime", f"runc {found.text} is unsafe", "bastide prepare")
    return ok("container runtime", f"runc {found.text} (floor {FLOOR})")


def microvms(settings: Settings) -> Finding:
    """Whether workspaces can have a kernel of their own: which, and what runs it."""
    qemu = read_qemu(settings.state_dir / "runtime" / QEMU)
    kernel = find_kernel(settings.state_dir)
    if qemu is None or kernel is None:
        missing = "emulator" if qemu is None else "guest kernel"
        return warn("microVMs", f"none: no {missing}; workspaces share this host's kernel",
                    "bastide prepare")  # fmt: skip
    hardware = known_hardware(settings.state_dir / "runtime")
    how = "not tried on hardware yet"
    if hardware is not None:
        how = f"{'hardware' if hardware.usable else 'emulated'}: {hardware.reason}"
    record = kernel.record
    return ok(
        "microVMs", f"qemu {qemu.text}, guest kernel {record.release} ({record.package}), {how}"
    )


def prepared(settings: Settings) -> Finding:
    """Whether the agent bundle and the base image are there."""
    lacking = []
    if not (settings.state_dir / "bundle" / "current").exists():
        lacking.append("agent bundle")
    images = [item.id for item in RECIPES if read_manifest(settings.state_dir / "images", item.id)]
    if not images:
        lacking.append("image")
    if lacking:
        return fail("bundle and images", f"no {', no '.join(lacking)}", "bastide prepare")
    return ok("bundle and images", ", ".join(images))


def users(settings: Settings) -> Finding:
    """Whether the users without privileges exist and can read this program."""
    missing = []
    for name in (settings.user, settings.edge_user, settings.resolver_user, settings.ssh_user):
        try:
            pwd.getpwnam(name)
        except KeyError:
            missing.append(name)
    if missing:
        return fail(
            "users",
            f"no user {', '.join(missing)}",
            "; ".join(f"useradd --system --user-group --no-create-home {name}" for name in missing),
        )
    closed = next(
        (path for path in Path(__file__).parents if not path.stat().st_mode & 0o001), None
    )
    if closed is not None:
        return fail(
            "users",
            f"{settings.user} cannot read this program: {closed} is closed to other users",
            "script/up installs a copy in /opt/bastide in that case",
        )
    names = (settings.user, settings.edge_user, settings.resolver_user, settings.ssh_user)
    return ok("users", ", ".join(names))
