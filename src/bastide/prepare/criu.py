"""CRIU, which takes and brings back the memory of machines.

The criu of Debian 12 does not start on new kernels (it cannot read their vdso). runc finds the
newer one by its name in PATH and runs it directly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bastide.node.machines.criu import FLOOR, HOME, read_version
from bastide.prepare.program import Program

CRIU = Program("criu", HOME, "snapshots", FLOOR, read_version)


def ensure_criu(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have a working criu under `state_dir/runtime`; see `Program.ensure`."""
    return CRIU.ensure(state_dir, say)
