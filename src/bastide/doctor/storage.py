"""Where disks and images lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bastide.doctor.finding import Finding, fail, ok, warn
from bastide.doctor.programs import PATH
from bastide.node import reflink
from bastide.node.machines.criu import FLOOR, HOME, read_version
from bastide.node.pool import MKFS, Pool
from bastide.node.rehearsal import failed, proven
from bastide.settings import Settings

GIB = 1024**3
LEAST_GIB = 2
LITTLE_GIB = 10


def space(settings: Settings) -> Finding:
    """Whether there is room for images and disks."""
    place = _there(settings.state_dir)
    free = shutil.disk_usage(place).free / GIB
    says = f"{free:.0f} GiB free for {settings.state_dir}"
    if free < LEAST_GIB:
        return fail("disk space", says, "make room, or put state_dir on a larger file system")
    if free < LITTLE_GIB:
        return warn("disk space", says, "each workspace may use up to its disk size")
    return ok("disk space", says)


def images(settings: Settings) -> Finding:
    """How much room images take, and the certificates their registries may have."""
    authority = settings.images.ca_file
    if authority is not None and not authority.is_file():
        return fail("images", f"images.ca_file {authority} is not there", "put it there")
    home = settings.state_dir / "images"
    try:
        sizes = [path.stat().st_blocks * 512 for path in home.glob("*.erofs")]
        layers = sum(path.stat().st_blocks * 512 for path in home.glob("blobs/*"))
    except OSError as error:
        return warn("images", f"{home} cannot be read: {error.strerror}", "run it with sudo")
    taken, most = (sum(sizes) + layers) / GIB, settings.images.cache_mb / 1024
    return ok("images", f"{len(sizes)}, {taken:.1f} GiB; unused ones are kept up to {most:.0f} GiB")


def reflinks(settings: Settings) -> Finding:
    """Whether disks can be copied without copying their bytes, here or in the pool."""
    pool = Pool.of(settings)
    if pool.file.exists():
        size, taken = pool.file.stat().st_size / GIB, pool.file.stat().st_blocks * 512 / GIB
        return ok("reflinks", f"in the pool {pool.file}: {taken:.1f} of {size:.0f} GiB taken")
    place = _there(settings.state_dir)
    try:
        supported = reflink.supported(place)
    except OSError as error:
        says = f"they cannot be tried in {place}: {error.strerror}"
        return warn("reflinks", says, "run it with sudo")
    return ok("reflinks", "work") if supported else _without_reflinks(settings)


def _without_reflinks(settings: Settings) -> Finding:
    """What becomes of a host whose file system has none."""
    says = f"the file system of {settings.state_dir} has none"
    if settings.storage.pool == "off":
        return warn(
            "reflinks",
            f"{says}; copies of disks copy their bytes",
            "set storage.pool to auto, or put state_dir on XFS or btrfs",
        )
    if shutil.which(MKFS, path=PATH) is None:
        return warn(
            "reflinks", f"{says}, and {MKFS} is missing", "apt-get install xfsprogs, then restart"
        )
    return ok("reflinks", f"{says}; a pool is made for disks when the cloud starts")


def snapshots(settings: Settings) -> Finding:
    """Whether memory can be captured: criu is there, and a trial of the node has succeeded."""
    found = read_version(settings.state_dir / "runtime" / HOME / "criu")
    if found is None:
        return warn("snapshots", "criu is not there: no snapshots of memory", "bastide prepare")
    if not found.enough:
        return warn("snapshots", f"criu {found.text} is too old ({FLOOR})", "bastide prepare")
    if reason := failed(settings.state_dir):
        return warn(
            "snapshots", f"criu {found.text}: {reason}", "the node tries again when it starts"
        )
    if not proven(settings.state_dir):
        return ok("snapshots", f"criu {found.text}; the node tries it when it starts")
    return ok("snapshots", f"criu {found.text}, tried on this kernel")


def _there(path: Path) -> Path:
    """The directory itself or the nearest one above it that exists."""
    while not os.path.isdir(path):  # noqa: PTH112 - a path without permission counts as absent
        path = path.parent
    return path
