"""One process of this host, named so that a reused pid cannot be mistaken for it.

Standard library only: the guard imports this and nothing else of ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A pid and its start time (clock ticks after boot, field 22 of /proc/PID/stat)."""

    pid: int
    started: int

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process that has this pid now, or None."""
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[19]))

    @classmethod
    def of(cls, child: subprocess.Popen[bytes]) -> Process:
        """A child of ours that was not yet waited for; such a one is always found."""
        found = cls.find(child.pid)
        if found is None:
            raise RuntimeError(f"child {child.pid} is not in /proc; is it mounted?")
        return found

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    @property
    def age(self) -> float:
        """Seconds since it started."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(0.0, uptime - self.started / os.sysconf("SC_CLK_TCK"))

    @contextlib.contextmanager
    def opened(self) -> Iterator[int | None]:
        """A pidfd, readable once the process has ended; None when it is gone already."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # The pid may have been reused before the descriptor was ours.
            yield descriptor if self.alive else None
        finally:
            os.close(descriptor)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process is gone."""
        with self.opened() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has ended, at most `timeout` seconds; whether it has."""
        with self.opened() as descriptor:
            if descriptor is None:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(None if timeout is None else timeout * 1000))

    def end(self, grace: float) -> None:
        """Ask it to end and, after `grace` seconds, make it."""
        if self.signal(signal.SIGTERM) and not self.wait(grace):
            self.signal(signal.SIGKILL)
            self.wait(grace)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name (state is the first), or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may hold anything, parentheses and blanks included.
    return text[text.rindex(")") + 2 :].split()
