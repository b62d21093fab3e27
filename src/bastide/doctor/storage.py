"""Where disks and images lie."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from bastide.doctor.finding import Finding, fail, ok, warn
from bastide.settings import Settings

GIB = 1024**3
LEAST_GIB = 2
LITTLE_GIB = 10
FICLONE = 0x40049409


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


def reflinks(settings: Settings) -> Finding:
    """Whether the file system can copy a disk without copying its bytes."""
    place = _there(settings.state_dir)
    try:
        with (
            tempfile.TemporaryFile(dir=place) as source,
            tempfile.TemporaryFile(dir=place) as copy,
        ):
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())
    except PermissionError:
        return warn("reflinks", f"{place} is not writable, so not tried", "run it with sudo")
    except OSError:
        return warn(
            "reflinks",
            f"the file system of {settings.state_dir} has none; copies of disks copy their bytes",
            "XFS or btrfs for state_dir make snapshots and forks instant",
        )
    return ok("reflinks", "work")


def _there(path: Path) -> Path:
    """The directory itself or the nearest one above it that exists."""
    while not os.path.isdir(path):  # noqa: PTH112 - a path without permission counts as absent
        path = path.parent
    return path
