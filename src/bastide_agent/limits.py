"""How much memory there is, so that one request never takes most of it."""

from __future__ import annotations

import os
from functools import lru_cache

LIMIT_FILES = (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
)
UNLIMITED = 1 << 60


@lru_cache(maxsize=1)
def memory_bytes() -> int:
    """The memory of the workspace in bytes: its cgroup's limit, else all of the machine's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMIT_FILES:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            text = os.read(fd, 64).strip()
        except OSError:
            continue
        finally:
            os.close(fd)
        if text.isdigit() and int(text) < UNLIMITED:
            return min(total, int(text))
    return total


def share_of_memory(divisor: int, most: int) -> int:
    """A bound in bytes: a part of the memory, at most `most`."""
    return min(most, memory_bytes() // divisor)
