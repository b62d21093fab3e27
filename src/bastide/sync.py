"""What must be there after a crash of the host."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk: what was made, renamed and removed. Blocks.

    Raises:
        OSError: there is no such directory, or the disk fails.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
