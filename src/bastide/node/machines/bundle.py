"""The agent bundle's files in the host's page cache."""

from __future__ import annotations

import os
from pathlib import Path

_PIECE = 1024 * 1024


def read_once(bundle: Path) -> int:
    """Read every file of a bundle; how many bytes.

    Pages are charged to whoever reads them first: without this the first workspace would pay for
    what all of them share, and wait for the disk. Blocks.
    """
    total = 0
    for folder, _, names in os.walk(bundle):
        for name in names:
            path = Path(folder) / name
            if path.is_symlink():
                continue
            with path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    total += len(piece)
    return total
