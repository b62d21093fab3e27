"""What survives when the processes of the cloud are killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.processes import kill, pids, until_whole
from tests.cloud.tasks import started

from bastide.client import Bastide, Workspace

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
            tasks[workspace.id] = started(events)
    return tasks


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
    until_whole(cloud, kill(cloud, victims))
    for workspace, task in busy.items():
        assert beat(client, workspace) > before[workspace], f"{workspace} stood still"
        found = client.workspaces.runtime(workspace).exec.get(task)
        assert found.status == "running", "the command was started anew or lost"
        assert client.workspaces.get(workspace).ready


def test_a_machine_with_its_own_kernel_goes_on_too(
    cloud: Cloud, client: Bastide, make_workspace: Callable[..., Workspace]
) -> None:
    """All processes killed at once: its command runs on, and it is paused, resumed and stopped."""
    workspace = make_workspace(memory_mb=128, config={"driver": "microvm"}).id
    runtime = client.workspaces.runtime(workspace)
    script = "while :; do date +%s%N > /root/beat; sleep 0.1; done"
    with runtime.exec.stream(["sh", "-c", script]) as events:
        task = started(events)
    booted = client.workspaces.info(workspace)
    assert booted.tier == "microvm"
    before = beat(client, workspace)
    until_whole(cloud, kill(cloud, ("supervisor", "node", "resolver", "api", "edge", "bastion")))
    assert beat(client, workspace) > before
    assert client.workspaces.runtime(workspace).exec.get(task).status == "running"
    client.workspaces.pause(workspace)
    client.workspaces.resume(workspace)
    assert client.workspaces.runtime(workspace).exec.get(task).status == "running"
    client.workspaces.stop(workspace)
    assert client.workspaces.get(workspace).state == "stopped"


def test_a_second_cloud_of_the_same_state_is_refused(cloud: Cloud) -> None:
    """`bastide up` beside a running one changes nothing and says so."""
    before = pids(cloud)
    refused = cloud.run("up", check=False)
    assert refused.returncode == 1
    assert "runs already" in refused.stderr
    assert pids(cloud) == before


BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat"
"""The kernel's id of the boot, and when process 1 began."""


def test_down_and_up_find_the_workspaces_again(
    cloud: Cloud, client: Bastide, workspace: Workspace
) -> None:
    """Workspaces run on while the cloud is down, and the next one knows them."""
    runtime = client.workspaces.runtime(workspace.id)
    boot = runtime.exec.run(BOOT).stdout
    cloud.run("down")
    assert cloud.run("status", check=False).returncode == 1
    cloud.run("up", "--detach")
    same = runtime.exec.run(BOOT).stdout
    assert same == boot
    assert client.workspaces.get(workspace.id).ready
