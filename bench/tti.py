"""Time to first command: from `POST /workspace` to the end of a first command in it.

Run with `python bench/tti.py [--json] [--count N] [--burst N] [--docker] [--save]` beside a running
cloud
(`eval "$(bastide env)"` first, or as root). Every sample goes the way of a user: create through
the API, wait until it is ready, enable the runtime, run `true` through the gateway. Stages are
what the node told of the same boots. `--docker` measures `docker run` and `docker exec` on the
same root file system in the same run; as root the memory of an idle workspace is read too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemon import PeerMissingError
from docker_baseline import Docker, docker
from report import Samples, finish, options

from bastide.client import ApiError, Bastide, BastideError, Workspace
from bastide.settings import settings

MEMORY_MB = 512
CPUS = 1.0
EXECS = 200


def time_to_first_command(client: Bastide) -> tuple[float, Workspace]:
    """Milliseconds from the creation of a workspace to the end of `true` in it."""
    start = time.perf_counter()
    workspace = client.workspaces.create("debian-12", memory_mb=MEMORY_MB, cpus=CPUS)
    client.workspaces.runtime(workspace.id).exec.run(["true"]).check()
    return (time.perf_counter() - start) * 1000, workspace


def stages(client: Bastide, workspace: Workspace) -> dict[str, float]:
    """Milliseconds of each stage of its boot, as the node measured them."""
    told = client.workspaces.info(workspace.id).boot_timings_ms
    return {f"stage_{name}": value for name, value in told.items()}


def one_by_one(client: Bastide, count: int, results: dict[str, Samples]) -> None:
    """Create, use and delete `count` workspaces, one after another."""
    told: dict[str, list[float]] = defaultdict(list)
    for number in range(count + 1):
        try:
            taken, workspace = time_to_first_command(client)
        except BastideError as error:
            print(f"tti {number}: {error}", file=sys.stderr)
            continue
        seen = stages(client, workspace)
        start = time.perf_counter()
        client.workspaces.delete(workspace.id)
        gone = (time.perf_counter() - start) * 1000
        if number == 0:
            continue  # warms caches and connections
        for name, value in {"tti_cold": taken, **seen, "delete_accepted": gone}.items():
            told[name].append(value)
        wait_gone(client, workspace)
    for name, values in told.items():
        results[name] = Samples(values, count)


def wait_gone(client: Bastide, workspace: Workspace) -> None:
    """Until a deletion has finished, so that it does not slow the next sample."""
    while True:
        try:
            client.workspaces.get(workspace.id)
        except ApiError:
            return
        time.sleep(0.05)


def at_once(client: Bastide, count: int, results: dict[str, Samples]) -> None:
    """Create `count` workspaces at the same time."""
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        running = [pool.submit(time_to_first_command, client) for _ in range(count)]
        done = [future.result() for future in running if future.exception() is None]
        wall = (time.perf_counter() - start) * 1000
    results["tti_burst"] = Samples([taken for taken, _ in done], count)
    results["burst_wall"] = Samples([wall] if len(done) == count else [], 1)
    for _, workspace in done:
        client.workspaces.delete(workspace.id)
    for _, workspace in done:
        wait_gone(client, workspace)


def warm(client: Bastide, results: dict[str, Samples]) -> None:
    """`true` in a running workspace, and the memory it takes while idle."""
    workspace = client.workspaces.create("debian-12", memory_mb=MEMORY_MB, cpus=CPUS)
    try:
        runtime = client.workspaces.runtime(workspace.id)
        runtime.exec.run(["true"]).check()
        time.sleep(1)
        used = idle_memory(workspace.id)
        if used is not None:
            results["idle_memory"] = Samples([used], 1, "MiB")
        times = []
        for _ in range(EXECS):
            start = time.perf_counter()
            if runtime.exec.run(["true"]).exit_code == 0:
                times.append((time.perf_counter() - start) * 1000)
        results["exec_true"] = Samples(times, EXECS)
    finally:
        client.workspaces.delete(workspace.id)
        wait_gone(client, workspace)


def idle_memory(workspace: str) -> float | None:
    """MiB the kernel counts for a workspace, without file cache it can drop; None if unreadable."""
    for usage, reclaimable in (
        ("memory/{}/{}/memory.usage_in_bytes", "total_inactive_file"),
        ("{}/{}/memory.current", "inactive_file"),
    ):
        file = Path("/sys/fs/cgroup") / usage.format(settings().network.table, workspace)
        try:
            used = int(file.read_text())
            stat = dict(line.split() for line in (file.parent / "memory.stat").open())
        except OSError:
            continue
        return (used - int(stat[reclaimable])) / 2**20
    return None


def beside_docker(count: int, results: dict[str, Samples]) -> None:
    """The same with Docker, on the same files."""
    root = image_root()
    if root is None:
        print("docker: the image of debian-12 is not mounted on this host", file=sys.stderr)
        return
    try:
        with docker(root) as daemon:
            daemon.run_and_exec(MEMORY_MB, CPUS)  # warms up
            runs = [daemon.run_and_exec(MEMORY_MB, CPUS) for _ in range(count)]
            results["docker_run_exec"] = Samples(runs, count)
            results["docker_exec_true"] = Samples(docker_execs(daemon), EXECS // 4)
    except PeerMissingError as error:
        print(f"docker: {error}", file=sys.stderr)


def docker_execs(daemon: Docker) -> list[float]:
    """`docker exec true` in a running container."""
    name = daemon("run", "--detach", "--network", "none", "bastide-bench", "/bin/sleep", "infinity")
    try:
        return [daemon.exec_true(name) for _ in range(EXECS // 4)]
    finally:
        daemon("rm", "--force", name)


def image_root() -> Path | None:
    """Where the files of an image are mounted, if they are."""
    mounted = settings().state_dir / "images" / "mnt"
    found = sorted(mounted.iterdir()) if mounted.is_dir() else []
    return next((path for path in found if (path / "bin" / "sleep").exists()), None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--count", type=int, default=100, help="workspaces, one after another")
    parser.add_argument("--burst", type=int, default=30, help="workspaces at the same time")
    parser.add_argument("--docker", action="store_true", help="measure Docker in the same run")
    arguments = parser.parse_args()
    results: dict[str, Samples] = {}
    with Bastide.from_env() as client:
        one_by_one(client, arguments.count, results)
        warm(client, results)
        if arguments.burst:
            at_once(client, arguments.burst, results)
    if arguments.docker:
        beside_docker(min(arguments.count, 30), results)
    finish("tti", results, arguments)


if __name__ == "__main__":
    main()
