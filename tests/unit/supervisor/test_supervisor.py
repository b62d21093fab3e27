"""The supervisor and its guard as real processes, killed in every way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bastide.supervisor.process import Process
from bastide.supervisor.record import Record, record_path
from bastide.supervisor.supervisor import halt

TOY = Path(__file__).with_name("toy_cloud.py")
DEADLINE = 30.0


def start(run_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(TOY), str(run_dir)], stderr=subprocess.PIPE)


def until(run_dir: Path, test: Callable[[Record], bool]) -> Record:
    """The record, once it passes the test."""
    end = time.monotonic() + DEADLINE
    record = None
    while time.monotonic() < end:
        record = Record.read(record_path(run_dir))
        if record is not None and test(record):
            return record
        time.sleep(0.02)
    pytest.fail(f"not within {DEADLINE} seconds; last seen: {record}")


def whole(record: Record) -> bool:
    """Whether supervisor, guard and both services run."""
    return record.supervisor.alive and [entry.name for entry in record.entries] == [
        "guard", "first", "second",
    ] and all(
        entry.state == "running" and entry.process is not None and entry.process.alive
        for entry in record.entries
    )  # fmt: skip


def processes(record: Record) -> dict[str, Process]:
    return {entry.name: entry.process for entry in record.entries if entry.process}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running toy cloud, ended with everything it has started."""
    child = start(tmp_path)
    yield child
    record = Record.read(record_path(tmp_path))
    left = processes(record) if record else {}
    if record is not None:
        left["supervisor"] = record.supervisor
    for name in ("guard", "supervisor", "first", "second"):
        if name in left:
            left[name].signal(signal.SIGKILL)
    child.kill()
    child.communicate()


def test_stopping_ends_everything(tmp_path: Path, cloud: subprocess.Popen[bytes]) -> None:
    """After SIGTERM no service, no guard and no record is left."""
    running = processes(until(tmp_path, whole))
    cloud.terminate()
    assert cloud.wait(DEADLINE) == 0
    assert not record_path(tmp_path).exists()
    assert not any(process.alive for process in running.values())


def test_a_second_supervisor_is_refused(tmp_path: Path, cloud: subprocess.Popen[bytes]) -> None:
    """The lock lets one supervisor run, and the second says why it does not."""
    before = until(tmp_path, whole)
    second = start(tmp_path)
    _, error = second.communicate(timeout=DEADLINE)
    assert second.returncode == 1
    assert b"runs already" in error
    assert Record.read(record_path(tmp_path)) == before


def test_a_killed_supervisor_is_replaced_and_its_services_go_on(
    tmp_path: Path, cloud: subprocess.Popen[bytes]
) -> None:
    """Kill -9 of the supervisor: the guard starts another, which adopts what runs."""
    before = until(tmp_path, whole)
    before.supervisor.signal(signal.SIGKILL)
    after = until(tmp_path, lambda now: now.supervisor != before.supervisor and whole(now))
    assert processes(after) == processes(before)


def test_a_killed_guard_is_replaced(tmp_path: Path, cloud: subprocess.Popen[bytes]) -> None:
    """Kill -9 of the guard: the supervisor starts another, and that one guards too."""
    before = until(tmp_path, whole)
    processes(before)["guard"].signal(signal.SIGKILL)
    after = until(
        tmp_path, lambda now: whole(now) and processes(now)["guard"] != processes(before)["guard"]
    )
    after.supervisor.signal(signal.SIGKILL)
    last = until(tmp_path, lambda now: now.supervisor != after.supervisor and whole(now))
    assert processes(last) == processes(after)


def test_everything_killed_at_once_heals(tmp_path: Path, cloud: subprocess.Popen[bytes]) -> None:
    """Kill -9 of the supervisor and all services together: the guard brings all back."""
    before = until(tmp_path, whole)
    before.supervisor.signal(signal.SIGKILL)
    for name in ("first", "second"):
        processes(before)[name].signal(signal.SIGKILL)
    after = until(tmp_path, lambda now: now.supervisor != before.supervisor and whole(now))
    assert processes(after)["guard"] == processes(before)["guard"]
    assert processes(after)["first"] != processes(before)["first"]
    assert processes(after)["second"] != processes(before)["second"]


def test_halt_ends_what_a_dead_supervisor_left(
    tmp_path: Path, cloud: subprocess.Popen[bytes]
) -> None:
    """With supervisor and guard dead, `halt` ends the services and takes the record away."""
    before = until(tmp_path, whole)
    processes(before)["guard"].signal(signal.SIGSTOP)
    before.supervisor.signal(signal.SIGKILL)
    processes(before)["guard"].signal(signal.SIGKILL)
    assert before.supervisor.wait(DEADLINE)
    assert processes(before)["guard"].wait(DEADLINE)
    assert halt(tmp_path) == ["second", "first"]
    assert not any(process.alive for process in processes(before).values())
    assert halt(tmp_path) == []
