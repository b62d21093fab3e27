"""What must be there after a crash of the host."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk: what was made, renamed and removed. Blocks.

    Raises:
        OSError: there is no such directory, or the disk fails.
    """
    _sync(directory, os.O_DIRECTORY)


def sync_entry(path: Path) -> None:
    """Bring a file or a directory to the disk, never what a link leads to. Blocks.

    Raises:
        OSError: it is a link or not there, or the disk fails.
    """
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
