"""Collect dead processes that the kernel handed to the node and that nobody waits for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MOMENTS = 5.0
"""Seconds within which whoever waits for a process has collected it."""


class Orphans:
    """The node takes in orphans (a runtime that died half-way leaves some).

    Whoever waits for a process collects it within moments. What is dead for longer is nobody's,
    and is collected here: otherwise its id would be taken for ever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._dead: dict[int, float] = {}

    def collect(self) -> int:
        """Collect those that were seen dead `MOMENTS` ago and still are; how many."""
        now = self._clock()
        self._dead = {pid: self._dead.get(pid, now) for pid in _children() if _is_dead(pid)}
        collected = 0
        for pid, since in self._dead.items():
            if now - since >= MOMENTS:
                with suppress(ChildProcessError):
                    collected += os.waitpid(pid, os.WNOHANG)[0] == pid
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
