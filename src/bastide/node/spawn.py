"""Run a program with exactly the open files it is meant to have, at the numbers it expects."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_CLEAR = 64
"""From here on no number is one that a program expects."""


async def run(argv: Sequence[str | Path], descriptors: Sequence[int], *, seconds: float) -> int:
    """Run `argv` to its end with `descriptors` as its files 0, 1, 2 and so on; its exit code.

    A negative code is the number of the signal that ended it. `argv[0]` is a path.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it did not end in time, and was killed.
    """
    pid = _start(argv, descriptors)
    waiting = asyncio.ensure_future(asyncio.to_thread(os.waitpid, pid, 0))
    try:
        _, status = await asyncio.wait_for(asyncio.shield(waiting), seconds)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await asyncio.shield(waiting)
        raise
    return os.waitstatus_to_exitcode(status)


def _start(argv: Sequence[str | Path], descriptors: Sequence[int]) -> int:
    held: list[int] = []
    try:
        # copies out of the way first: one of ours may have a number that another shall get
        for descriptor in descriptors:
            held.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _CLEAR))  # noqa: PERF401
        return os.posix_spawn(
            argv[0],
            [os.fsencode(each) for each in argv],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(held)
            ],
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    finally:
        for descriptor in held:
            os.close(descriptor)
