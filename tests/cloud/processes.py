"""The processes of a running cloud: who they are, killing them, waiting for what follows."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.cloud.cloud import Cloud

from bastide.supervisor.process import Process

DEADLINE = 60.0


class Held(NamedTuple):
    """What a process holds: open descriptors, and MiB of memory."""

    descriptors: int
    mib: int


def pids(cloud: Cloud) -> dict[str, Process]:
    """The processes that run now, by their names."""
    found = json.loads(cloud.run("status", "--json", check=False).stdout)["processes"]
    return {
        name: Process(item["pid"], item["start_time"])
        for name, item in found.items()
        if item["pid"] is not None
    }


def kill(cloud: Cloud, victims: Sequence[str]) -> dict[str, Process]:
    """Kill -9; what was killed."""
    running = pids(cloud)
    killed = {name: running[name] for name in victims}
    for process in killed.values():
        assert process.signal(signal.SIGKILL)
    return killed


def kill_all(cloud: Cloud) -> None:
    """Kill -9 of every process, and nothing starts anew: as when the host's power goes."""
    running = pids(cloud)
    supervisor = running.pop("supervisor")
    assert supervisor.signal(signal.SIGSTOP)  # it would start another guard, and that another of it
    for process in (running.pop("guard"), supervisor, *running.values()):
        assert process.signal(signal.SIGKILL)
        assert process.wait(DEADLINE)


def until_whole(cloud: Cloud, killed: dict[str, Process]) -> dict[str, Any]:
    """The status, once everything runs again and nothing killed is among it."""
    end = time.monotonic() + DEADLINE
    while True:
        done = cloud.run("status", "--json", check=False)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            now = found["processes"]
            if all(now[name]["pid"] != process.pid for name, process in killed.items()):
                return found
        if time.monotonic() > end:
            pytest.fail(f"not whole again within {DEADLINE} seconds:\n{done.stdout}")


def held(cloud: Cloud) -> dict[str, Held]:
    """What each process of the cloud holds now."""
    return {name: _held(process) for name, process in pids(cloud).items()}


def _held(process: Process) -> Held:
    place = Path(f"/proc/{process.pid}")
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines())
    return Held(len(list((place / "fd").iterdir())), int(status["VmRSS"].split()[0]) // 1024)
