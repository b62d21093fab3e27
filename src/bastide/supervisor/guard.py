"""The guard: a small process that starts the supervisor again when it dies.

`python -m bastide.supervisor.guard RECORD PID STARTED COMMAND...` watches the supervisor (pid and
start time) and, when it ends without having meant to, runs COMMAND and watches that. The
supervisor watches the guard in turn. Standard library only, to stay small.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bastide.supervisor.backoff import Backoff
from bastide.supervisor.process import Process
from bastide.supervisor.record import Record


def guard(record: Path, watched: Process, command: list[str]) -> None:
    """Keep a supervisor alive until one ends on purpose."""
    backoff = Backoff()
    child: subprocess.Popen[bytes] | None = None
    while True:
        began = time.monotonic()
        watched.wait()
        if child is not None and child.pid == watched.pid:
            child.wait()
        told = Record.read(record)
        if told is None or told.stopping:
            # It took its record away, or was on its way out.
            return
        if told.supervisor != watched and told.supervisor.alive:
            # Somebody else started one.
            watched = told.supervisor
            continue
        time.sleep(backoff.after(time.monotonic() - began))
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True)
        watched = Process.of(child)


def main() -> None:
    """Read the arguments and guard."""
    record, pid, started, *command = sys.argv[1:]
    guard(Path(record), Process(int(pid), int(started)), command)


if __name__ == "__main__":
    main()
