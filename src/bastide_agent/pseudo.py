"""What lies below `/` and is no file of the workspace."""

from __future__ import annotations

import os

PSEUDO = ("proc", "sys", "dev", ".bastide")
"""Names below `/`: the kernel's own file systems and this agent."""


def pseudo_below(root: str | int) -> tuple[str, ...]:
    """The names in a directory (a path or an open one) that no walk goes into: none but in `/`."""
    return PSEUDO if os.path.samestat(os.stat(root), os.stat("/")) else ()  # noqa: PTH116
