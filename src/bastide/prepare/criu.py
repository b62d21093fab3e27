"""CRIU, which takes and brings back the memory of machines.

The criu of Debian 12 does not start on new kernels (it cannot read their vdso). runc finds the
newer one by its name in PATH and runs it directly.

What it finds out about the kernel at each start, for a tenth of a second, it keeps in /run, but
only where that is a tmpfs. Not every host has one there; /dev is one everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bastide.node.machines.criu import FLOOR, HOME, read_version
from bastide.prepare.program import Program

_KEPT = ((b"/run/criu.kdat", b"/dev/criu.kdat"),)
CRIU = Program("criu", HOME, "snapshots", FLOOR, read_version, _KEPT)


def ensure_criu(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have a working criu under `state_dir/runtime`; see `Program.ensure`."""
    return CRIU.ensure(state_dir, say)
