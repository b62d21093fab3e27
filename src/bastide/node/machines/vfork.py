"""Programs caught in the middle of starting another.

The caller of vfork (and of posix_spawn, so most shells, Python and Go) waits in the kernel, deaf
to everything, until its child has executed another program. Frozen at that moment neither goes
on, and CRIU, which must stop each by itself, would wait for the caller in vain.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PLACES = ("kernel_clone", "wait_for_vfork_done", "_do_fork")
"""What `wchan` calls the place, by kernel and compiler; one without symbols calls it `0`."""


def waiting(processes: Iterable[int]) -> bool:
    """Whether a thread of these frozen processes waits for a child of its own. Blocks."""
    return any(_waits(process) for process in processes)


def _waits(process: int) -> bool:
    with suppress(OSError):  # it ended before all stood still
        for thread in Path(f"/proc/{process}/task").iterdir():
            if (thread / "wchan").read_text() in _PLACES:
                return True
    return False
