"""What survives when the processes of the cloud are killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.cloud.cloud import Cloud

from bastide.client import Bastide, ExecEvent, Started, Workspace
from bastide.supervisor.process import Process

pytestmark = pytest.mark.cloud
DEADLINE = 60.0
MACHINES = 10


@pytest.fixture
def busy(client: Bastide, make_workspace: Callable[..., Workspace]) -> dict[str, str]:
    """Workspaces that each run a command: workspace id → task id."""
    tasks = {}
    for _ in range(MACHINES):
        workspace = make_workspace(memory_mb=128)
        runtime = client.workspaces.runtime(workspace.id)
        script = "while :; do date +%s%N > /root/beat; sleep 0.1; done"
        with runtime.exec.stream(["sh", "-c", script]) as events:
            tasks[workspace.id] = _started(events)
    return tasks


def _started(events: Iterator[ExecEvent]) -> str:
    for event in events:
        if isinstance(event, Started):
            return event.task_id
    raise AssertionError("the command was not started")


def pids(cloud: Cloud) -> dict[str, Process]:
    return {
        name: Process(item["pid"], item["start_time"])
        for name, item in cloud.json("status")["processes"].items()
    }


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


def beat(client: Bastide, workspace: str) -> int:
    """When the command in a workspace last wrote."""
    end = time.monotonic() + DEADLINE
    while True:
        # It may have been caught between emptying the file and writing it.
        text = client.workspaces.runtime(workspace).exec.run("cat /root/beat").stdout.strip()
        if text:
            return int(text)
        assert time.monotonic() < end


@pytest.mark.parametrize(
    "victims",
    [("node",), ("resolver",), ("api",), ("edge",), ("bastion",), ("supervisor",), ("guard",),
     ("supervisor", "node", "resolver", "api", "edge", "bastion")],
    ids="+".join,
)  # fmt: skip
def test_commands_go_on_and_all_answers_again(
    cloud: Cloud, client: Bastide, busy: dict[str, str], victims: tuple[str, ...]
) -> None:
    """Kill -9 of any process, or of all at once: ten workspaces keep running their commands."""
    before = {workspace: beat(client, workspace) for workspace in busy}
    uptimes = {
        workspace: client.workspaces.runtime(workspace).exec.get(task).status
        for workspace, task in busy.items()
    }
    assert set(uptimes.values()) == {"running"}
    running = pids(cloud)
    killed = {name: running[name] for name in victims}
    for process in killed.values():
        assert process.signal(signal.SIGKILL)
    until_whole(cloud, killed)
    for workspace, task in busy.items():
        assert beat(client, workspace) > before[workspace], f"{workspace} stood still"
        found = client.workspaces.runtime(workspace).exec.get(task)
        assert found.status == "running", "the command was started anew or lost"
        assert client.workspaces.get(workspace).ready


def test_a_second_cloud_of_the_same_state_is_refused(cloud: Cloud) -> None:
    """`bastide up` beside a running one changes nothing and says so."""
    before = pids(cloud)
    refused = cloud.run("up", check=False)
    assert refused.returncode == 1
    assert "runs already" in refused.stderr
    assert pids(cloud) == before


def test_down_and_up_find_the_workspaces_again(
    cloud: Cloud, client: Bastide, workspace: Workspace
) -> None:
    """Workspaces run on while the cloud is down, and the next one knows them."""
    runtime = client.workspaces.runtime(workspace.id)
    boot = runtime.exec.run("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").stdout
    cloud.run("down")
    assert cloud.run("status", check=False).returncode == 1
    cloud.run("up", "--detach")
    same = runtime.exec.run("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").stdout
    assert same == boot
    assert client.workspaces.get(workspace.id).ready
