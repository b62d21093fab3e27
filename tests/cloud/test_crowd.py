"""Everything at once in one workspace, and what it costs.

Two slow clients, one large download, one large upload, 50 tasks and 10 terminals; meanwhile `true`
is run again and again. `BASTIDE_TEST_CROWD_MIB` says how large is large (default 32).
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.agent.wire import Wire
from tests.cloud.cloud import Cloud
from tests.cloud.door import Door, gateway

from bastide.client import Bastide
from bastide.node.cgroups import detect

pytestmark = pytest.mark.cloud

SIZE = int(os.environ.get("BASTIDE_TEST_CROWD_MIB", "32"))
TASKS = 48  # with the slow client's and `true` itself that makes the 50 that may run
TERMINALS = 10
TIMEOUT = 900.0
MIB = 1024 * 1024
MOST_MEMORY = 40 * MIB
PACE = 0.05  # seconds between two bites of a slow client
BITE = 16 * 1024


@pytest.fixture
def workspace_id(client: Bastide) -> Iterator[str]:
    """A workspace with room for both files."""
    made = client.workspaces.create(
        "debian-12", cpus=2, memory_mb=1024, disk_size_mb=max(512, SIZE * 4)
    )
    yield made.id
    client.workspaces.delete(made.id)


def agent_of(cloud: Cloud, workspace: str) -> int:
    """The process of a workspace's agent, as the host counts."""
    for process in detect(cloud.settings.network.table).processes(workspace):
        argv = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if argv[0].startswith(b"/.bastide/bin/python") and b"/.bastide/agent/main.pyc" in argv:
            return process
    raise AssertionError("there is no agent")


def resident(process: int) -> int:
    """Memory of a process, what it shares included (bytes)."""
    status = Path(f"/proc/{process}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def slow(door: Door, stop: threading.Event, method: str, path: str, body: object) -> int:
    """Take an answer a small bite at a time until told to stop; how many bytes came."""
    taken = 0
    with door.http(TIMEOUT) as http, http.stream(method, path, json=body) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_raw(BITE):
            taken += len(piece)
            if stop.wait(PACE):
                break
    return taken


def download(door: Door, path: str) -> str:
    """The hash of the only file in a downloaded archive."""
    inflate = zlib.decompressobj(31)
    total, head, left = hashlib.sha256(), b"", -1
    with (
        door.http(TIMEOUT) as http,
        http.stream("POST", "/files/transfer/download", json={"paths": [path]}) as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            data = inflate.decompress(piece)
            if left < 0:
                head += data
                if len(head) < tarfile.BLOCKSIZE:
                    continue
                info = tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "strict")
                left, data = info.size, head[tarfile.BLOCKSIZE :]
            total.update(data[:left])
            left -= min(left, len(data))
    assert inflate.eof
    assert left == 0
    return total.hexdigest()


def upload(door: Door, archive: Path) -> str:
    """Send an archive; the answer."""
    with door.http(TIMEOUT) as http, archive.open("rb") as file:
        answer = http.post(
            "/files/transfer/upload", params={"dest": "/root/up"},
            content=iter(lambda: file.read(256 * 1024), b""),
            headers={"Content-Type": "application/gzip"},
        )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer.text


def start(http: httpx.Client, script: str) -> None:
    """Start a task and leave it."""
    with http.stream("POST", "/exec/stream", json={"cmd": ["sh", "-c", script]}) as answer:
        assert answer.status_code == 200, answer.read()
        assert next(answer.iter_lines()).startswith("id: ")


def attend(door: Door, stop: threading.Event) -> int:
    """Read all terminals until told to stop; bytes of output."""
    with Wire(door) as wire:
        while not stop.is_set():
            wire.until(lambda: stop.is_set() or len(wire.frames) > 50)
            wire.frames.clear()
        return sum(len(output) for output in wire.output.values())


def sh(http: httpx.Client, script: str) -> str:
    """The output of a script in the workspace."""
    told = http.post("/exec", json={"cmd": ["sh", "-c", script]}).json()
    assert told["exit_code"] == 0, told
    return str(told["stdout"])


def large_file(folder: Path) -> tuple[str, Path]:
    """The hash of a file nobody can compress, and an archive with it as `sent`."""
    content, archive = folder / "sent", folder / "sent.tgz"
    total = hashlib.sha256()
    with content.open("wb") as file:
        for _ in range(SIZE):
            piece = os.urandom(MIB)
            total.update(piece)
            file.write(piece)
    with tarfile.open(archive, "w:gz", compresslevel=0) as packed:
        packed.add(content, "sent")
    return total.hexdigest(), archive


def crowd(http: httpx.Client) -> None:
    """Fill the workspace with tasks and terminals."""
    for number in range(TASKS):
        start(http, f"while :; do echo task {number}; sleep 2; done")
    for _ in range(TERMINALS):
        script = "while :; do echo tick; sleep 1; done"
        made = http.post("/terminals", json={"cmd": ["sh", "-c", script]})
        assert made.status_code == 201, made.text


def measure(http: httpx.Client, agent: int, *transfers: Future[str]) -> tuple[list[float], int]:
    """Run `true` while they last, 50 times at least: milliseconds, and the agent's peak memory."""
    times: list[float] = []
    peak = 0
    while not all(transfer.done() for transfer in transfers) or len(times) < 50:
        before = time.perf_counter()
        answer = http.post("/exec", json={"cmd": ["true"]})
        times.append((time.perf_counter() - before) * 1000)
        assert answer.status_code == 200, answer.text
        assert answer.json()["exit_code"] == 0
        peak = max(peak, resident(agent))
    return sorted(times), peak


def test_crowd(
    cloud: Cloud,
    workspace_id: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """All of it succeeds, byte for byte, and the agent stays below 40 MiB."""
    door = gateway(cloud, workspace_id)
    agent = agent_of(cloud, workspace_id)
    idle = resident(agent)
    sent, archive = large_file(tmp_path)
    stop = threading.Event()
    with ExitStack() as stack:
        http = stack.enter_context(door.http(TIMEOUT))
        held = sh(http, f"head -c {SIZE * MIB} /dev/urandom > /root/big; sha256sum /root/big")
        crowd(http)
        pool = stack.enter_context(ThreadPoolExecutor(5))
        stack.callback(stop.set)
        noise = {"cmd": ["sh", "-c", "while :; do head -c 65536 /dev/zero; done"]}
        paths = {"paths": ["/root/big"]}
        background = [
            pool.submit(slow, door, stop, "POST", "/exec/stream", noise),
            pool.submit(slow, door, stop, "POST", "/files/transfer/download", paths),
            pool.submit(attend, door, stop),
        ]
        began = time.perf_counter()
        down = pool.submit(download, door, "/root/big")
        up = pool.submit(upload, door, archive)
        times, peak = measure(http, agent, down, up)
        seconds = time.perf_counter() - began
        tasks = http.get("/exec").json()["tasks"]
        stop.set()
        slowly = [future.result() for future in background]
        http.delete("/exec")
        assert down.result() == held.split()[0]
        assert json.loads(up.result())["files_extracted"] == 1
        assert sh(http, "sha256sum /root/up/sent").split()[0] == sent
    assert sum(task["status"] == "running" for task in tasks) == TASKS + 1
    assert all(slowly)
    assert peak < MOST_MEMORY
    report = {
        "large_mib": SIZE,
        "seconds": round(seconds, 1),
        "exec_true_p50_ms": round(times[len(times) // 2], 1),
        "exec_true_p95_ms": round(times[int(len(times) * 0.95)], 1),
        "exec_true_max_ms": round(times[-1], 1),
        "exec_true_n": len(times),
        "agent_idle_rss_mib": round(idle / MIB, 1),
        "agent_peak_rss_mib": round(peak / MIB, 1),
        "slow_clients_took_bytes": slowly,
    }
    for name, value in report.items():
        record_property(name, json.dumps(value))
        print(f"{name:26}{value}")  # noqa: T201
