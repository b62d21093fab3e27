"""Processes named by pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from bastide.supervisor.process import Process


def sleeper() -> subprocess.Popen[bytes]:
    """A child that does nothing until it is ended."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


def test_a_process_lives_until_it_is_ended() -> None:
    """`alive` is true while it runs and false once it has ended, reaped or not."""
    child = sleeper()
    process = Process.of(child)
    alive = [process.alive]
    assert process.signal(signal.SIGKILL)
    assert process.wait(10)
    alive.append(process.alive)
    child.wait()
    alive.append(process.alive)
    assert alive == [True, False, False], "while running, as a zombie, and once reaped"


def test_a_reused_pid_is_another_process() -> None:
    """A pid with another start time is neither alive nor signalled."""
    child = sleeper()
    real = Process.of(child)
    stale = Process(child.pid, real.started - 1)
    assert not stale.alive
    assert not stale.signal(signal.SIGKILL)
    assert stale.wait(0)
    assert real.alive, "the signal for the old process reached the new one"
    real.end(10)
    child.wait()


def test_end_kills_what_does_not_listen() -> None:
    """A process that ignores SIGTERM is killed after the grace."""
    script = (
        "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    Process.of(child).end(0.1)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


def test_find_knows_itself_and_no_ghosts() -> None:
    """The running process is found with a plausible age; a pid that cannot exist is not."""
    me = Process.find(os.getpid())
    assert me is not None
    assert me.alive
    assert me.age > 0
    assert Process.find(2**22 + 1) is None
