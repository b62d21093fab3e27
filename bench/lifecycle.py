"""Pause, resume, start to a first command, delete, snapshot and restore, as the caller sees them.

Run with `python bench/lifecycle.py [--json] [--count N] [--docker] [--lxd] [--save]` beside a
running cloud (`eval "$(bastide env)"` first, or as root). Every sample goes through the API, and
commands through the gateway. As root, where the cloud has a pool, a disk with a gigabyte in it is
copied there too. `--docker` and `--lxd` measure the same with Docker and LXD in the same run, on
the same root file system, through their own command lines (LXD resumes with `lxc start`).
"""

from __future__ import annotations

import argparse
import os
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon import PeerMissingError
from docker_baseline import IMAGE, docker
from lxd_baseline import lxd
from report import Samples, finish, options
from tti import CPUS, MEMORY_MB, image_root, wait_gone

from bastide.client import Bastide
from bastide.node import reflink
from bastide.node.pool import Pool
from bastide.settings import Settings

PAUSES = 100
GIB = 1024**3


def milliseconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def pauses(client: Bastide, results: dict[str, Samples]) -> None:
    """Pause and resume of an idle workspace, one after the other."""
    workspace = client.workspaces.create("debian-12", memory_mb=MEMORY_MB, cpus=CPUS)
    try:
        client.workspaces.runtime(workspace.id).exec.run(["true"]).check()
        told: dict[str, list[float]] = defaultdict(list)
        for number in range(PAUSES + 3):
            paused = milliseconds(lambda: client.workspaces.pause(workspace.id))
            resumed = milliseconds(lambda: client.workspaces.resume(workspace.id))
            if number >= 3:  # the first ones warm connections
                told["pause"].append(paused)
                told["resume"].append(resumed)
        keep(told, PAUSES, results)
    finally:
        client.workspaces.delete(workspace.id)
        wait_gone(client, workspace)


def starts(client: Bastide, count: int, results: dict[str, Samples]) -> None:
    """Start of a stopped workspace to the end of a first command; stop; delete."""
    told: dict[str, list[float]] = defaultdict(list)
    for number in range(count + 1):
        seen = one_life(client)
        if number:  # the first warms caches
            for name, value in seen.items():
                told[name].append(value)
    keep(told, count, results)


def one_life(client: Bastide) -> dict[str, float]:
    """Milliseconds of each call in the life of one workspace."""
    workspace = client.workspaces.create("debian-12", memory_mb=MEMORY_MB, cpus=CPUS)
    runtime = client.workspaces.runtime(workspace.id)
    runtime.exec.run(["true"]).check()

    def begin() -> None:
        client.workspaces.start(workspace.id)
        runtime.exec.run(["true"]).check()

    seen = {
        "stop": milliseconds(lambda: client.workspaces.stop(workspace.id)),
        "start_to_command": milliseconds(begin),
        "delete_seen": milliseconds(lambda: client.workspaces.delete(workspace.id)),
    }
    wait_gone(client, workspace)
    return seen


def snapshots(client: Bastide, count: int, results: dict[str, Samples]) -> None:
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


@dataclass(frozen=True)
class Peer:
    """Another program that runs a container of the same files, by what it is told."""

    name: str
    call: Callable[..., str]
    container: str
    resume: str
    stop: tuple[str, ...]
    remove: tuple[str, ...]
    separator: tuple[str, ...] = ()
    """What stands before a command that is to be run."""

    def start(self) -> float:
        """Milliseconds from the start of the stopped container to the end of its first `true`."""
        self.call(*self.stop, self.container)

        def begin() -> None:
            self.call("start", self.container)
            self.call("exec", self.container, *self.separator, "/bin/true")

        return milliseconds(begin)

    def measure(self, count: int, results: dict[str, Samples]) -> None:
        """Pause and resume, start to a first command, and removal."""
        told: dict[str, list[float]] = defaultdict(list)
        for _ in range(PAUSES // 4):
            for word in ("pause", self.resume):
                work = partial(self.call, word, self.container)
                told[f"{self.name}_{word}"].append(milliseconds(work))
        keep(told, PAUSES // 4, results)
        results[f"{self.name}_start_exec"] = Samples([self.start() for _ in range(count)], count)
        removed = milliseconds(lambda: self.call(*self.remove, self.container))
        results[f"{self.name}_remove"] = Samples([removed], 1)


def beside(wanted: Namespace, count: int, results: dict[str, Samples]) -> None:
    """The same with others, on the same files.

    Raises:
        PeerMissingError: what is asked for cannot be measured here.
    """
    if not wanted.docker and not wanted.lxd:
        return
    root = image_root()
    if root is None:
        raise PeerMissingError("the image of debian-12 is not mounted on this host")
    if wanted.docker:
        with docker(root) as daemon:
            name = daemon(
                "run", "--detach", "--network", "none", "--memory", f"{MEMORY_MB}m",
                "--cpus", str(CPUS), "--init", IMAGE, "/bin/sleep", "infinity",
            )  # fmt: skip
            peer = Peer(
                "docker", daemon, name, "unpause", ("stop", "--time", "1"), ("rm", "--force")
            )
            peer.measure(count, results)
    if wanted.lxd:
        with lxd(root) as client:
            client.launch("bench", MEMORY_MB, CPUS)
            stop, remove = ("stop", "--force"), ("delete", "--force")
            Peer("lxd", client, "bench", "start", stop, remove, ("--",)).measure(count, results)


def keep(
    told: dict[str, list[float]] | dict[str, Sequence[float]],
    tried: int,
    results: dict[str, Samples],
) -> None:
    """Put samples among the results."""
    for name, values in told.items():
        results[name] = Samples(values, tried)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--count", type=int, default=30, help="starts and deletions")
    parser.add_argument("--docker", action="store_true", help="measure Docker in the same run")
    parser.add_argument("--lxd", action="store_true", help="measure LXD in the same run")
    arguments = parser.parse_args()
    results: dict[str, Samples] = {}
    with Bastide.from_env() as client:
        pauses(client, results)
        starts(client, arguments.count, results)
        snapshots(client, arguments.count, results)
    copies(arguments.count, results)
    try:
        beside(arguments, min(arguments.count, 20), results)
    except PeerMissingError as error:
        parser.exit(1, f"{error}\n")
    finish("lifecycle", results, arguments)


if __name__ == "__main__":
    main()
