"""Collect dead processes that the kernel handed to the node and that nobody waits for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class Orphans:
    """The node takes in orphans (a runtime that died half-way leaves some).

    Whoever waits for a process collects it within moments. What is still dead at the next look
    is nobody's, and is collected here: otherwise its id would be taken for ever.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def collect(self) -> int:
        """Collect those that were already dead at the last look; how many."""
        dead = {pid for pid in _children() if _is_dead(pid)}
        collected = 0
        for pid in dead & self._seen:
            with suppress(ChildProcessError):
                collected += os.waitpid(pid, os.WNOHANG)[0] == pid
        self._seen = dead
        return collected


def _children() -> set[int]:
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found


def _is_dead(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
