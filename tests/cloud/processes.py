"""The processes of a running cloud: who they are, killing them, waiting for what follows."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.cloud.cloud import Cloud

from bastide.supervisor.process import Process

DEADLINE = 60.0


def pids(cloud: Cloud) -> dict[str, Process]:
    """The processes by their names."""
    return {
        name: Process(item["pid"], item["start_time"])
        for name, item in cloud.json("status")["processes"].items()
    }


def kill(cloud: Cloud, victims: Sequence[str]) -> dict[str, Process]:
    """Kill -9; what was killed."""
    running = pids(cloud)
    killed = {name: running[name] for name in victims}
    for process in killed.values():
        assert process.signal(signal.SIGKILL)
    return killed


def until_whole(cloud: Cloud, killed: dict[str, Process]) -> dict[str, Any]:
    """The status, once everything runs again and nothing killed is among it."""
    end = time.monotonic() + DEADLINE
    while True:
        done = cloud.run("status", "--json", check=False)
        if done.returncode == 0:
            found: dict[str, Any] = cloud.json("status")
            now = found["processes"]
            if all(now[name]["pid"] != process.pid for name, process in killed.items()):
                return found
        if time.monotonic() > end:
            pytest.fail(f"not whole again within {DEADLINE} seconds:\n{done.stdout}")
