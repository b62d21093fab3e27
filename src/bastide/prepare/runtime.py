"""The container runtime: runc.

That of a released Debian can be older than what is safe (CVE-2025-31133, CVE-2026-41579: 1.3.6 is
the floor, field notes 5.2).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bastide.node.machines.runc import CURRENT, FLOOR, read_version
from bastide.prepare.program import Program

RUNC = Program("runc", CURRENT, "runtime", FLOOR, read_version)


def ensure_runtime(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have a safe runc under `state_dir/runtime`; see `Program.ensure`."""
    return RUNC.ensure(state_dir, say)
