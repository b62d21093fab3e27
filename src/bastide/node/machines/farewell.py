"""What the agent says last: the signal that ended the main command.

Process 1 can only tell a code, and 137 is as well that of `exit 137`. So the agent writes one line
where process 1 prints, after READY and before it ends:

    BASTIDE SIGNAL number

Whoever is root inside can write it too, and then has told a story of its own workspace. It is
bounded, and counts only where it fits the code.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from bastide.node.process import Ended

SIGNAL = re.compile(rb"BASTIDE SIGNAL (\d{1,2})")
_MOST = 64 * 1024
_LINE = re.compile(rb"(?:^|\n)" + SIGNAL.pattern + rb"\n")


def with_signal(code: int, number: int | None) -> Ended:
    """The end of a main command with `code`, and with the signal the agent named."""
    return Ended(code=code, signal=number if number and code == 128 + number else None)


class Farewell:
    """Hears it from the pipe on which a container's process 1 prints; `close` it.

    Nobody reads it while the machine runs: what is printed then fills the pipe and is the
    machine's own.
    """

    def __init__(self) -> None:
        self._pipe = -1

    def listen(self, descriptor: int) -> None:
        """Take over the reading end of the pipe."""
        self.close()
        os.set_blocking(descriptor, False)
        self._pipe = descriptor

    def of(self, ended: Ended) -> Ended:
        """How the machine ended, whose process 1 `ended` like this. Reads a bounded piece."""
        if self._pipe < 0 or ended.code is None:
            return ended
        said = b""
        with suppress(BlockingIOError):
            while len(said) < _MOST and (more := os.read(self._pipe, _MOST - len(said))):
                said += more
        told = _LINE.findall(said)
        return with_signal(ended.code, int(told[-1]) if told else None)

    def close(self) -> None:
        """Let go of the pipe. Repeating is harmless."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
