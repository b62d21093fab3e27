"""The agent as a real process on free loopback ports."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.agent.isolated import Isolated, start
from tests.agent.trees import small_project

from bastide.prepare.bundle import build_bundle

SOURCE = Path(__file__).parents[2] / "src"
CONTROL_TOKEN = "c0" * 32
RUNTIME_TOKEN = "ab" * 32
DEADLINE = 60.0


@dataclass
class Agent:
    """One running agent and clients for its two ports."""

    process: subprocess.Popen[bytes]
    control_port: int
    runtime_port: int
    home: Path
    token: str = RUNTIME_TOKEN

    @property
    def url(self) -> str:
        """Base URL of its runtime API."""
        return f"http://127.0.0.1:{self.runtime_port}"

    def client(self, token: str = RUNTIME_TOKEN, port: int | None = None) -> httpx.Client:
        """A client of the runtime port."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{port or self.runtime_port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=DEADLINE,
        )

    def control(self) -> httpx.Client:
        """A client of the control port."""
        return self.client(CONTROL_TOKEN, self.control_port)

    def memory_kib(self) -> int:
        """Private memory of the process (KiB)."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines()
                   if line.startswith(("Private_Clean", "Private_Dirty")))  # fmt: skip

    def stop(self) -> int:
        """End it as the node does; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def read_line(stream_fd: int) -> str:
    """One line from a pipe, within the deadline."""
    line = b""
    end = time.monotonic() + DEADLINE
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream_fd], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"no line from the agent: {line!r}"
        byte = os.read(stream_fd, 1)
        assert byte, f"the agent ended: {line!r}"
        line += byte
    return line.decode().strip()


def start_agent(home: Path, *, wrapper: Sequence[str] = (), **changes: object) -> Agent:
    """Start an agent whose children live in `home`; `changes` replace parts of the document.

    `wrapper` is a command that runs the agent, as `unshare` would.
    """
    document = {
        "boot_id": "boot-1",
        "hostname": "workspace",
        "control": {"host": "127.0.0.1", "port": 0, "token": CONTROL_TOKEN},
        "runtime": {"host": "127.0.0.1", "port": 0, "enabled": True, "token": RUNTIME_TOKEN},
        "env": {"GREETING": "hello", "HOME": str(home)},
        "workdir": str(home),
        **changes,
    }
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-X", "dev", "-W", "error", "-m", "bastide_agent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(document).encode())
    process.stdin.close()
    try:
        _, control, runtime = read_line(process.stdout.fileno()).split()
        assert read_line(process.stdout.fileno()) == "READY"
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    return Agent(process, int(control), int(runtime), home)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with the runtime enabled, shared by the tests of a module."""
    running = start_agent(tmp_path_factory.mktemp("home"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def isolate() -> Iterator[Callable[..., Isolated]]:
    """Starts isolated agents from the real bundle (`isolated.py`), with changes of the document."""
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    base = Path(tempfile.mkdtemp(prefix="bastide-isolated-"))
    base.chmod(0o755)
    (base / "root").mkdir()
    (base / "marker").touch()
    started: list[Isolated] = []

    def one(**changes: object) -> Isolated:
        bundle = build_bundle(base / "state")
        started.append(
            start(bundle, base / "root", base / "marker", read_line, [str(SOURCE)], **changes)
        )
        return started[-1]

    try:
        yield one
    finally:
        for agent in started:
            agent.stop()
        shutil.rmtree(base)


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent of this test alone."""
    running = start_agent(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def http(agent: Agent) -> Iterator[httpx.Client]:
    """A client of the shared agent's runtime port."""
    with agent.client() as client:
        yield client


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project."""
    return small_project(tmp_path)
