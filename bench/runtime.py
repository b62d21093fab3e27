"""The runtime API of a workspace, beside the same work done by plain tools in that workspace.

    python bench/runtime.py --local                     an agent started from this checkout
    python bench/runtime.py --url URL --token TOKEN     a workspace that runs
    eval "$(bastide env)"; python bench/runtime.py      a new workspace, through the gateway

Options: `--json` (one object and nothing else), `--save` (both forms in `bench/results`),
`--requests N`, `--size MIB` of the transfer.
A name that ends in `_tool` is the plain tool, run in the workspace and timed from within by one
command, so that it pays nothing for the API. The workspace needs a shell, tar and gzip.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from report import Samples, finish, options
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from bastide.client import Bastide
from bastide.domain.machine import AGENT_ENV

GZIP_LEVEL = 1  # the agent's
ENTRIES = 50_000
SEARCHED = 10_000
BLOCK = 1 << 20
TOKEN = "ab" * 32
SOURCE = Path(__file__).parents[1] / "src"


class BenchError(Exception):
    """Something needed for a figure does not work; the message says what."""


@dataclass
class Runtime:
    """A runtime API and a directory in its workspace that is ours."""

    url: str
    token: str
    folder: str = "/tmp/bastide-bench"
    agent: tuple[str, ...] = (
        "/.bastide/bin/python3.11", "-I", "-S", "/.bastide/agent/main.pyc",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self._connection: HTTPConnection | None = None

    def connection(self) -> HTTPConnection:
        """A kept connection."""
        if self._connection is None:
            parts = urlsplit(self.url)
            kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=900)
        return self._connection

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def request(
        self, method: str, path: str, body: Any = None, *, into: Path | None = None
    ) -> bytes:
        """One request; the answer's body, or with `into` nothing and the body in that file.

        A `Path` as body is streamed. Raises `BenchError` for anything but a 2xx.
        """
        headers = {"Authorization": f"Bearer {self.token}"}
        connection = self.connection()
        try:
            if isinstance(body, Path):
                with body.open("rb") as file:
                    headers["Content-Length"] = str(body.stat().st_size)
                    connection.blocksize = BLOCK
                    connection.request(method, path, file, headers)
            else:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                raise BenchError(f"{method} {path}: {answer.status} {answer.read()[:300]!r}")
            if into is None:
                return answer.read()
            with into.open("wb") as file:
                while piece := answer.read(BLOCK):
                    file.write(piece)
        except (OSError, HTTPException) as error:
            self.close()
            raise BenchError(f"{method} {path}: {error}") from error
        return b""

    def sh(self, script: str) -> str:
        """Run a shell script in the workspace; what it prints. `BenchError` when it fails."""
        told = json.loads(self.request("POST", "/exec", {"cmd": ["/bin/sh", "-c", script]}))
        if told["exit_code"]:
            raise BenchError(f"{script!r} ended with {told['exit_code']}: {told['stderr'][:300]}")
        return str(told["stdout"])

    def timed(self, script: str) -> float:
        """Milliseconds a script takes in the workspace, without the API around it."""
        clock = "read up rest </proc/uptime"  # the only clock every shell has: hundredths
        if self.sh("date +%N").strip().isdigit():
            clock = "up=$(date +%s.%N)"
        told = self.sh(f"{clock}; before=$up; {script} || exit 9; {clock}; echo $before $up")
        before, after = told.split()[-2:]
        return (float(after) - float(before)) * 1000


def repeat(count: int, work: Callable[[], object]) -> Samples:
    """Call `work` so many times; milliseconds of the calls that succeeded."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        try:
            work()
        except (BenchError, OSError, TimeoutError, WebSocketException) as error:
            print(error, file=sys.stderr)
            continue
        times.append((time.perf_counter() - start) * 1000)
    return Samples(times, count)


def tool(runtime: Runtime, count: int, script: str, each: int = 1) -> Samples:
    """Time a script in the workspace `count` times; milliseconds for each of its `each` rounds."""
    values = []
    for _ in range(count):
        try:
            values.append(runtime.timed(script) / each)
        except BenchError as error:
            print(error, file=sys.stderr)
    return Samples(values, count)


def loop(command: str, rounds: int) -> str:
    """A shell loop."""
    return f"i=0; while [ $i -lt {rounds} ]; do {command}; i=$((i+1)); done"


def commands(runtime: Runtime, count: int, results: dict[str, Samples]) -> None:
    """`true`, beside a shell that forks and waits for it."""

    def run() -> None:
        told = json.loads(runtime.request("POST", "/exec", {"cmd": ["true"]}))
        if told["exit_code"] != 0:
            raise BenchError(f"true: {told}")

    run()
    results["exec_true"] = repeat(count, run)
    results["exec_true_tool"] = tool(runtime, 5, loop("/bin/true", 200), 200)


def small_files(runtime: Runtime, count: int, results: dict[str, Samples]) -> None:
    """Read and write 4 KiB, beside `cat` and `dd`."""
    path = f"{runtime.folder}/small"
    body = {"path": path, "content": "x" * 4096}
    runtime.request("POST", "/files/write", body)
    results["write_4k"] = repeat(count, lambda: runtime.request("POST", "/files/write", body))
    read = f"/files/read?path={quote(path)}"
    results["read_4k"] = repeat(count, lambda: runtime.request("GET", read))
    copy = f"dd if=/dev/zero of={path}.dd bs=4096 count=1 2>/dev/null"
    results["write_4k_tool"] = tool(runtime, 5, loop(copy, 100), 100)
    results["read_4k_tool"] = tool(runtime, 5, loop(f"cat {path} >/dev/null", 100), 100)


def listing(runtime: Runtime, results: dict[str, Samples]) -> None:
    """A tree of 50,000 entries, beside `ls`."""
    root = f"{runtime.folder}/many"
    folders = ENTRIES // 500
    runtime.sh(
        f"mkdir -p {root} && cd {root} && d=0; while [ $d -lt {folders} ]; do mkdir -p d$d; f=1; "
        "while [ $f -lt 500 ]; do : >d$d/f$f; f=$((f+1)); done; d=$((d+1)); done"
    )
    query = urlencode({"path": root, "nested": "true", "flatten": "true"})

    def run() -> None:
        if json.loads(runtime.request("GET", f"/files?{query}"))["count"] != ENTRIES:
            raise BenchError(f"{root} does not have {ENTRIES} entries")

    run()
    results["list_50000"] = repeat(5, run)
    results["list_50000_stream"] = repeat(
        5, lambda: runtime.request("GET", f"/files/stream?{query}")
    )
    results["list_50000_tool"] = tool(runtime, 5, f"ls -lR {root} >/dev/null")


def searching(runtime: Runtime, results: dict[str, Samples]) -> None:
    """Text in 10,000 files, beside the same ripgrep."""
    root = f"{runtime.folder}/text"
    runtime.sh(
        f"mkdir -p {root} && cd {root} && line='the quick brown fox jumps over the lazy dog'; "
        'text=$(i=0; while [ $i -lt 80 ]; do echo "$i $line"; i=$((i+1)); done); d=0; '
        f"while [ $d -lt {SEARCHED // 100} ]; do mkdir -p d$d; f=0; while [ $f -lt 100 ]; do "
        'echo "$text" >d$d/f$f.txt; f=$((f+1)); done; echo "a needle in $d" >>d$d/f0.txt; '
        "d=$((d+1)); done"
    )
    rg = json.loads(runtime.request("GET", "/files/search/init"))["path"]
    query = urlencode({"path": root, "q": "needle", "max_results": 1000})

    def run() -> None:
        found = json.loads(runtime.request("GET", f"/files/search?{query}"))
        if found["total_matches"] != SEARCHED // 100:
            raise BenchError(f"the search found {found['total_matches']} lines")

    run()
    results["search_10000"] = repeat(20, run)
    script = f"{rg} --no-config -n --column needle {root} >/dev/null"
    results["search_10000_tool"] = tool(runtime, 20, script)


def transfers(runtime: Runtime, size: int, results: dict[str, Samples]) -> None:
    """A tree down and up, beside tar and gzip of the same level through a pipe."""
    root, there = f"{runtime.folder}/big", f"{runtime.folder}/big.tgz"
    files = max(2, size // 16)
    runtime.sh(  # one half does not compress, the other by half
        f"mkdir -p {root} && cd {root} && i=0; while [ $i -lt {files} ]; do "
        "head -c 8388608 /dev/urandom >r$i; od -An -v -tx1 r$i | head -c 8388608 >t$i; "
        "i=$((i+1)); done"
    )
    name = f"{files * 16}MiB"
    archive = Path(tempfile.mkdtemp(prefix="bench-")) / "big.tgz"
    try:
        body = {"paths": [root]}
        download = "/files/transfer/download"
        results[f"download_{name}"] = repeat(
            2, lambda: runtime.request("POST", download, body, into=archive)
        )
        pipe = f"tar -cf - -C {runtime.folder} big | gzip -{GZIP_LEVEL} | cat"
        results[f"download_{name}_tool"] = tool(runtime, 2, f"{pipe} >/dev/null")
        runtime.sh(f"rm -rf {root}")
        upload = f"/files/transfer/upload?dest={quote(runtime.folder)}/up"
        results[f"upload_{name}"] = repeat(2, lambda: runtime.request("POST", upload, archive))
        runtime.sh(f"cd {runtime.folder} && tar -cf - up | gzip -{GZIP_LEVEL} >{there}; rm -rf up")
        unpack = f"cd {runtime.folder} && mkdir -p x && cat {there} | gzip -d | tar -xf - -C x"
        results[f"upload_{name}_tool"] = tool(runtime, 2, unpack)
    finally:
        shutil.rmtree(archive.parent)
        runtime.sh(f"rm -rf {runtime.folder}/big {runtime.folder}/up {runtime.folder}/x {there}")


def terminal(runtime: Runtime, count: int, results: dict[str, Samples]) -> None:
    """A keystroke and its echo over `/ws`."""
    opened = json.loads(runtime.request("POST", "/terminals", {"cmd": ["cat"]}))
    number = int(opened["id"])
    url = runtime.url.replace("http", "ws", 1) + "/ws"
    headers = {"Authorization": f"Bearer {runtime.token}"}
    try:
        with connect(url, additional_headers=headers, compression=None, max_size=None) as socket:
            echo(socket, number)
            results["terminal_echo"] = repeat(count, lambda: echo(socket, number))
    finally:
        runtime.request("DELETE", f"/terminals/{number}")


def echo(socket: ClientConnection, number: int) -> None:
    """Type one letter and wait until it is back."""
    socket.send(bytes((number,)) + b"x")
    while True:
        message = socket.recv(timeout=10)
        if isinstance(message, bytes) and message[:1] == bytes((number,)) and b"x" in message:
            return


def first_answer(runtime: Runtime, count: int, results: dict[str, Samples]) -> None:
    """From the start of an agent's process to its ports being served (`READY`)."""
    document = json.dumps({
        "control": {"host": "127.0.0.1", "port": 0, "token": TOKEN},
        "runtime": {"host": "127.0.0.1", "port": 0, "enabled": True, "token": TOKEN},
    })  # fmt: skip
    program = " ".join(runtime.agent)
    script = f"printf %s '{document}' | exec {program}"

    times = []
    for _ in range(count):
        start = time.perf_counter()
        task, told = until_ready(runtime, script)
        times.append((time.perf_counter() - start) * 1000)
        runtime.request("DELETE", f"/exec/{task}")
        if b"READY" not in told:
            raise BenchError(f"an agent does not start here: {told!r}")
    results["agent_ready"] = Samples(times, count)


def until_ready(runtime: Runtime, script: str) -> tuple[str, bytes]:
    """Run a script until it prints READY; its task and what it printed."""
    headers = {"Authorization": f"Bearer {runtime.token}"}
    body = json.dumps({"cmd": ["/bin/sh", "-c", script]})
    runtime.connection().request("POST", "/exec/stream", body, headers)
    task, told = "", b""
    for line in runtime.connection().getresponse():
        data = json.loads(line[6:]) if line.startswith(b"data: ") else {}
        task = data.get("task_id", task)
        told += base64.b64decode(data.get("data", ""))
        if b"READY" in told:
            break
    runtime.close()
    return task, told


def memory(runtime: Runtime) -> float:
    """MiB of memory that only the agent holds (its private pages, without shared libraries)."""
    told = runtime.sh(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | "
        "grep -q -e '^/.bastide/bin/[p]ython' -e '[p]ython.* -m bastide_agent' && "
        "{ cat $p/smaps_rollup; exit; }; done; exit 1"
    )
    rows = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return float(rows["Private_Dirty"].split()[0]) / 1024


def measure(runtime: Runtime, requests: int, size: int) -> dict[str, Samples]:
    """Every figure."""
    results: dict[str, Samples] = {}
    runtime.request("GET", "/health")
    try:
        results["agent_memory_idle"] = Samples([memory(runtime)], 1, "MiB")
        runtime.sh(f"rm -rf {runtime.folder} && mkdir -p {runtime.folder}")
        commands(runtime, requests, results)
        small_files(runtime, requests, results)
        listing(runtime, results)
        searching(runtime, results)
        terminal(runtime, requests, results)
        first_answer(runtime, 10, results)
        transfers(runtime, size, results)
        results["agent_memory_after"] = Samples([memory(runtime)], 1, "MiB")
    finally:
        runtime.sh(f"rm -rf {runtime.folder}")
        runtime.close()
    return results


@contextmanager
def local() -> Iterator[Runtime]:
    """An agent from this checkout on loopback, working in a directory of its own."""
    home = Path(tempfile.mkdtemp(prefix="bench-runtime-"))
    document = {
        "control": {"host": "127.0.0.1", "port": 0, "token": TOKEN},
        "runtime": {"host": "127.0.0.1", "port": 0, "enabled": True, "token": TOKEN},
        "env": {"HOME": str(home), "PYTHONPATH": str(SOURCE)},
        "workdir": str(home),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bastide_agent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], **AGENT_ENV},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        port = int(process.stdout.readline().split()[2])
        process.stdout.close()
        agent = (sys.executable, "-m", "bastide_agent")
        yield Runtime(f"http://127.0.0.1:{port}", TOKEN, f"{home}/bench", agent)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home)


@contextmanager
def created(size: int) -> Iterator[Runtime]:
    """A new workspace, reached through the gateway, and deleted afterwards."""
    with Bastide.from_env() as cloud:
        workspace = cloud.workspaces.create(
            "debian-12", cpus=2, memory_mb=2048, disk_size_mb=max(4096, size * 5)
        )
        try:
            answer = httpx.post(
                f"{os.environ['BASTIDE_API_URL']}/workspace/{workspace.id}/runtime-api-access/enable",
                headers={
                    "X-Client-ID": os.environ["BASTIDE_CLIENT_ID"],
                    "X-Client-Secret": os.environ["BASTIDE_CLIENT_SECRET"],
                },
                timeout=60,
            )
            answer.raise_for_status()
            yield Runtime(
                os.environ["BASTIDE_GATEWAY_URL"].rstrip("/"), answer.json()["token"], "/root/bench"
            )
        finally:
            cloud.workspaces.delete(workspace.id)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options(parser)
    parser.add_argument("--local", action="store_true", help="start an agent from this checkout")
    parser.add_argument("--url", help="of a runtime API")
    parser.add_argument("--token", help="for --url")
    parser.add_argument("--requests", type=int, default=500, help="of each small figure")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the transfer")
    given = parser.parse_args()
    with ExitStack() as stack:
        if given.local:
            runtime = stack.enter_context(local())
        elif given.url:
            runtime = Runtime(given.url.rstrip("/"), given.token or "")
        else:
            runtime = stack.enter_context(created(given.size))
        results = measure(runtime, given.requests, given.size)
    finish("runtime", results, given)


if __name__ == "__main__":
    main()
