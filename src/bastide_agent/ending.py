"""The end of a machine: every process is asked to end, waited for, and at last made to.

As an init does it: also what made itself a daemon is told, so that a database started from a
terminal can put its files in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal

from bastide_agent.process import has_terminal, others

PROCESS_1 = "/.bastide/bin/tini"
SCARCE = 0.05  # seconds before another look while no descriptor can be had


def all_are_ours() -> bool:
    """Whether every process we see is of this machine: process 1 is the bundle's, and began us.

    Elsewhere (an agent on a host, as in tests) the others are nobody we may touch.
    """
    try:
        return os.getppid() == 1 and os.readlink("/proc/1/exe") == PROCESS_1  # noqa: PTH115
    except OSError:
        return False


async def end_all(grace: float) -> None:
    """End every process but the agent and process 1; to be called when `all_are_ours`.

    They are asked, and killed `grace` seconds later, whatever they do meanwhile. Returns as soon
    as none is left: at once where there was none.
    """
    if not _ask():
        return
    try:
        async with asyncio.timeout(grace):
            await _all_ended()
    except TimeoutError:
        _tell_all(signal.SIGKILL)


def _ask() -> bool:
    """SIGTERM to all; whether there was anybody.

    Who has a terminal gets SIGHUP too, which shells in use heed instead (and which makes daemons
    only read their settings again). Who was stopped must go on to hear it.
    """
    if not _tell_all(signal.SIGTERM):
        return False
    for pid in others():
        if has_terminal(pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGHUP)
    _tell_all(signal.SIGCONT)
    return True


def _tell_all(number: signal.Signals) -> bool:
    """Signal all in one step, which no process escapes by starting another; whether there is any.

    The kernel leaves out process 1 and ourselves.
    """
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        return False
    return True


async def _all_ended() -> None:
    """Wait until nobody is left; who comes up meanwhile was started by those who were asked."""
    left = True
    while left:
        left = False
        for pid in others():
            left = await _ended(pid) or left


async def _ended(pid: int) -> bool:
    """Wait for the end of a process; False when it had ended before (and may wait to be reaped)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        await asyncio.sleep(SCARCE)
        return True
    loop = asyncio.get_running_loop()
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if poll.poll(0):
            return False
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        await ended.wait()
        return True
    finally:
        loop.remove_reader(fd)
        os.close(fd)
