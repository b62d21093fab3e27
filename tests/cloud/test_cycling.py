"""Many workspaces at once, each through its whole life again and again: no leak, none stuck.

BASTIDE_TEST_WORKSPACES (4) of them for BASTIDE_TEST_SECONDS (15). With BASTIDE_TEST_GROWTH_MIB no
process of the cloud may hold so much more memory afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.cloud.batch import DEADLINE, gone
from tests.cloud.cloud import Cloud
from tests.cloud.processes import Held, held
from tests.host.leaks import assert_same, traces

from bastide.client import Bastide, ConflictError, NotFoundError

pytestmark = pytest.mark.cloud
COUNT = int(os.environ.get("BASTIDE_TEST_WORKSPACES", "4"))
SECONDS = float(os.environ.get("BASTIDE_TEST_SECONDS", "15"))
GROWTH = int(os.environ.get("BASTIDE_TEST_GROWTH_MIB", "0"))
VERBS = ("start", "stop", "restart", "pause", "resume", "snapshot", "restore", "resize")
SIZES: tuple[dict[str, float], ...] = (
    {"cpus": 0.5},
    {"cpus": 1},
    {"memory_mb": 192},
    {"memory_mb": 128},
)
SPARE = 16
"""Descriptors that pools of connections may hold at one time and not at another."""


class Times:
    """Seconds of each call, and how many were refused, by its name."""

    def __init__(self) -> None:
        self.done: defaultdict[str, list[float]] = defaultdict(list)
        self.refused: defaultdict[str, int] = defaultdict(int)

    def table(self) -> str:
        """A line for each call: how many, median, longest, refused."""
        lines = [f"{'':10}{'done':>8}{'p50 ms':>10}{'most ms':>10}{'refused':>9}"]
        for name, seconds in sorted(self.done.items()):
            ordered = [1000 * one for one in sorted(seconds)]
            lines.append(
                f"{name:10}{len(ordered):8}{ordered[len(ordered) // 2]:10.0f}{ordered[-1]:10.0f}"
                f"{self.refused[name]:9}"
            )
        return "\n".join(lines)


def live(cloud: Cloud, number: int, end: float, times: Times) -> None:
    """One workspace after the other, at least one, until the time is over."""
    chance = random.Random(number)
    with cloud.client() as client:
        live_once(client, chance, times)
        while time.monotonic() < end:
            live_once(client, chance, times)


def live_once(client: Bastide, chance: random.Random, times: Times) -> None:
    """One workspace: made, moved about, used, deleted."""
    began = time.monotonic()
    made = client.workspaces.create("debian-12", memory_mb=128, disk_size_mb=128).id
    times.done["create"].append(time.monotonic() - began)
    disk = 128
    for _ in range(chance.randint(1, 6)):
        verb = chance.choice(VERBS)
        sizes: dict[str, float] = {}
        if verb == "resize":
            disk += 8
            sizes = chance.choice((*SIZES, {"disk_size_mb": disk}))
        began = time.monotonic()
        try:
            getattr(client.workspaces, verb)(made, **sizes)
        except (ConflictError, NotFoundError):  # the latter: a restore of nothing
            times.refused[verb] += 1
        else:
            taken = time.monotonic() - began
            assert taken < DEADLINE, f"{verb} took {taken:.0f} s"
            times.done[verb].append(taken)
    if client.workspaces.get(made).status == "running":
        client.workspaces.runtime(made).exec.run(["true"]).check()
    client.workspaces.delete(made)
    gone(client, made)


def live_side_by_side(cloud: Cloud, seconds: float) -> Times:
    """All of them at once."""
    times = Times()
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(COUNT) as pool:
        for life in [pool.submit(live, cloud, number, end, times) for number in range(COUNT)]:
            life.result()
    return times


def grown(now: dict[str, Held], before: dict[str, Held]) -> list[str]:
    """The processes that hold more than they may."""
    return [
        f"{name}: {held}, before {before[name]}"
        for name, held in now.items()
        if held.descriptors > before[name].descriptors + SPARE
        or (GROWTH and held.mib > before[name].mib + GROWTH)
    ]


def test_lives_side_by_side(cloud: Cloud) -> None:
    """Every call ends, refusals are conflicts only; host and processes hold nothing afterwards."""
    before = traces(cloud.settings)
    live_side_by_side(cloud, 0.0)  # what is opened once and kept is there now
    held_before = held(cloud)
    times = live_side_by_side(cloud, SECONDS)
    sys.stdout.write(f"\n{times.table()}\n")
    asyncio.run(assert_same(cloud.settings, before))
    end = time.monotonic() + DEADLINE
    while more := grown(held(cloud), held_before):
        assert time.monotonic() < end, more
        time.sleep(0.2)
    sys.stdout.write(f"before: {held_before}\nafter: {held(cloud)}\n")
