"""Whether a root file system is laid out so that mounting into it is safe.

Everything the runtime mounts goes to a few directories of the root. If one of them were a
symlink, a mount could land elsewhere (runc CVE-2025-31133, CVE-2026-41579): such a tree is
refused, whatever the runtime would make of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from bastide.node.errors import BootFailed, ImageUnavailable

MOUNT_POINTS = ("dev", "proc", "sys", "run", "etc", ".bastide")


def check_layout(root: Path) -> None:
    """Refuse a machine's root in which a mount point is anything but a directory or absent.

    Raises:
        BootFailed: names the first offender.
    """
    offender = _offender(root, required=False)
    if offender:
        raise BootFailed(f"the root file system is refused: {offender}")


def check_image(root: Path) -> None:
    """Refuse an image in which a mount point is anything but a directory.

    Raises:
        ImageUnavailable: names the first offender.
    """
    offender = _offender(root, required=True)
    if offender:
        raise ImageUnavailable(f"the image is refused: {offender}")


def check_directories(root: Path, names: Iterable[str]) -> None:
    """Refuse an image in which one of `names` is anything but a directory or absent.

    Parents must come before what is in them: then no link is ever followed on the way.

    Raises:
        ImageUnavailable: names the first offender.
    """
    offender = _offender(root, required=False, names=names)
    if offender:
        raise ImageUnavailable(f"the image is refused: {offender}")


def _offender(root: Path, *, required: bool, names: Iterable[str] = MOUNT_POINTS) -> str | None:
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in names:
            try:
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except FileNotFoundError:
                if required:
                    return f"/{name} is missing"
                continue
            if not stat.S_ISDIR(mode):
                return f"/{name} is {_kind(mode)}, it must be a directory"
    finally:
        os.close(directory)
    return None


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISREG(mode):
        return "a file"
    return "a special file"
