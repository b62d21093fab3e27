"""Snapshots of an idle workspace, restores to a first command, and copies of a disk.

Run with `python bench/snapshots.py [--json] [--count N]` beside a running cloud
(`eval "$(bastide env)"` first, or as root). Calls go through the API, commands through the
gateway; `frozen` is how long the machine stood still, as the node tells. As root, where the cloud
has a pool, a disk with a gigabyte in it is copied there too.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

from lifecycle import keep, milliseconds
from report import Samples, emit
from tti import CPUS, MEMORY_MB, wait_gone

from bastide.client import Bastide
from bastide.node import reflink
from bastide.node.pool import Pool
from bastide.settings import Settings

GIB = 1024**3


def idle(client: Bastide, count: int, results: dict[str, Samples]) -> None:
    """Snapshot a workspace that does nothing, and go back to it."""
    workspace = client.workspaces.create("debian-12", memory_mb=MEMORY_MB, cpus=CPUS)
    runtime = client.workspaces.runtime(workspace.id)
    told: dict[str, list[float]] = defaultdict(list)

    def back() -> None:
        client.workspaces.restore(workspace.id)
        runtime.exec.run(["true"]).check()

    try:
        runtime.exec.run(["true"]).check()
        for number in range(count + 1):
            taken = milliseconds(lambda: client.workspaces.snapshot(workspace.id))
            last = client.workspaces.info(workspace.id).snapshot
            restored = milliseconds(back)
            if number:  # the first warms caches
                told["snapshot"].append(taken)
                told["frozen"].append(last.frozen_ms if last else 0.0)
                told["restore_to_command"].append(restored)
        keep(told, count, results)
    finally:
        client.workspaces.delete(workspace.id)
        wait_gone(client, workspace)


def copies(count: int, results: dict[str, Samples]) -> None:
    """Copy a file with a gigabyte of data in it, as a disk is copied."""
    pool = Pool.of(Settings())
    if os.geteuid() != 0 or not pool.mounted:
        return
    source, target = pool.point / ".bench", pool.point / ".bench.copy"
    try:
        with source.open("wb") as file:
            piece = os.urandom(1024 * 1024)
            for _ in range(GIB // len(piece)):
                file.write(piece)
            os.fsync(file.fileno())
        results["copy_1gb_pool"] = Samples([_copy(source, target) for _ in range(count)], count)
    finally:
        for path in (source, target):
            path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> float:
    target.unlink(missing_ok=True)
    return milliseconds(lambda: reflink.copy(source, target))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--count", type=int, default=20, help="of each")
    arguments = parser.parse_args()
    results: dict[str, Samples] = {}
    with Bastide.from_env() as client:
        idle(client, arguments.count, results)
    copies(arguments.count, results)
    emit(results, as_json=arguments.json)


if __name__ == "__main__":
    main()
