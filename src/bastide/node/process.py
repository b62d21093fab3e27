"""A process of the host by its identity: id and start time, so that a reused id is never ours."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """How a process ended; both None when its parent was somebody else and we cannot know.

    `reason` is for people, where the numbers do not tell.
    """

    code: int | None = None
    signal: int | None = None
    reason: str | None = None


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when there is none of that id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name may hold spaces and brackets: count from its end; field 22 is the 20th after it
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


class Process:
    """A running process, watched until it ends. Needs not be our child."""

    def __init__(self, pid: int, started: int, descriptor: int) -> None:
        self.pid = pid
        self.started = started
        self._descriptor = descriptor
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(descriptor, self._learn)

    @classmethod
    def watch(cls, pid: int, started: int | None = None) -> Process | None:
        """Watch a process; None when it is gone, or is not the one that began at `started`."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        # asked after the descriptor is held: it cannot become another process any more
        now = start_time(pid)
        if now is None or (started is not None and now != started):
            os.close(descriptor)
            return None
        return cls(pid, now, descriptor)

    @property
    def ended(self) -> asyncio.Future[Ended]:
        """Done when the process has ended; await it shielded."""
        return self._ended

    @property
    def age(self) -> float:
        """Seconds since it started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICKS

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._ended.done()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; harmless when it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self, seconds: float | None = None) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: it still runs after `seconds`.
        """
        async with asyncio.timeout(seconds):
            return await asyncio.shield(self._ended)

    def _learn(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        ended = Ended()
        # Ours only when the node is the nearest subreaper, that is: it did not restart meanwhile.
        with suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            if result and result.si_code == os.CLD_EXITED:
                ended = Ended(code=result.si_status)
            elif result:
                ended = Ended(signal=result.si_status)
        os.close(self._descriptor)
        self._ended.set_result(ended)

    def forget(self) -> None:
        """Stop watching; the process goes on."""
        if self.alive:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._ended.cancel()
