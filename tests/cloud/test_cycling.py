"""Many workspaces at once, each through its whole life again and again: no leak, none stuck.

BASTIDE_TEST_WORKSPACES (4) of them for BASTIDE_TEST_SECONDS (15).
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
from tests.host.leaks import assert_same, traces

from bastide.client import Bastide, ConflictError, NotFoundError

pytestmark = pytest.mark.cloud
COUNT = int(os.environ.get("BASTIDE_TEST_WORKSPACES", "4"))
SECONDS = float(os.environ.get("BASTIDE_TEST_SECONDS", "15"))
VERBS = ("start", "stop", "restart", "pause", "resume", "snapshot", "restore")


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


def live(client: Bastide, number: int, end: float, times: Times) -> None:
    """One workspace: made, moved about, used, deleted, until the time is over."""
    chance = random.Random(number)
    while time.monotonic() < end:
        began = time.monotonic()
        made = client.workspaces.create("debian-12", memory_mb=128, disk_size_mb=128).id
        times.done["create"].append(time.monotonic() - began)
        for _ in range(chance.randint(1, 6)):
            verb = chance.choice(VERBS)
            began = time.monotonic()
            try:
                getattr(client.workspaces, verb)(made)
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


def test_lives_side_by_side(cloud: Cloud, client: Bastide) -> None:
    """Every call ends, refusals are conflicts only, and afterwards the host holds nothing more."""
    before = traces(cloud.settings)
    times = Times()
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(COUNT) as pool:
        for life in [pool.submit(live, client, number, end, times) for number in range(COUNT)]:
            life.result()
    sys.stdout.write(f"\n{times.table()}\n")
    asyncio.run(assert_same(cloud.settings, before))
