"""Snapshots in a whole cloud: what a person has running comes back, and can be reached."""

from __future__ import annotations

import signal
from collections.abc import Callable

import httpx
import pytest
from tests.agent.wire import Wire, new_terminal
from tests.cloud.cloud import Cloud
from tests.cloud.processes import pids, until_whole
from tests.cloud.tasks import started
from tests.cloud.test_lifecycle import sh, state, until

from bastide.client import Bastide, ConflictError, NotFoundError, Workspace

pytestmark = pytest.mark.cloud
Make = Callable[..., Workspace]
COUNT = "i=0; while :; do i=$((i+1)); echo $i | tee /root/count; sleep 0.05; done"


def begin(client: Bastide, workspace: str) -> str:
    """Start counting; the id of the task."""
    with client.workspaces.runtime(workspace).exec.stream(["sh", "-c", COUNT]) as events:
        return started(events)


def count(client: Bastide, workspace: str) -> int:
    """How far it has counted."""
    line = "cat /root/count 2>/dev/null; true"  # `tee` may not have made it yet
    return int(until(lambda: sh(client, workspace, line).strip(), "a count"))


@pytest.mark.parametrize(
    ("after", "then"), [("resume", "running"), ("paused", "paused"), ("stop", "stopped")]
)
def test_a_task_goes_on_where_it_was(
    client: Bastide, make_workspace: Make, after: str, then: str
) -> None:
    """Whatever it was after the snapshot, a restore brings task, files and access of that time."""
    workspace = make_workspace(memory_mb=256).id
    task = begin(client, workspace)
    sh(client, workspace, "echo before > /root/file")
    until(lambda: count(client, workspace) > 10, "counting")
    taken = client.workspaces.snapshot(workspace, after=after)
    assert taken.memory_bytes > 2**20
    assert state(client, workspace) == then
    if then == "running":
        at = count(client, workspace)
        until(lambda: count(client, workspace) > at, "it counts on")
        sh(client, workspace, "echo after > /root/file; touch /root/later")
    restored = client.workspaces.restore(workspace)
    assert restored == taken
    assert client.workspaces.get(workspace).ready
    assert sh(client, workspace, "cat /root/file; ls /root/later 2>/dev/null; true") == "before\n"
    runtime = client.workspaces.runtime(workspace)
    assert runtime.exec.get(task).status == "running"
    now = count(client, workspace)
    until(lambda: count(client, workspace) > now, "it counts again")
    info = client.workspaces.info(workspace)
    assert info.snapshot == taken
    assert info.snapshot_supported


def test_restored_after_it_was_destroyed_and_the_node_restarted(
    cloud: Cloud, client: Bastide, make_workspace: Make
) -> None:
    """The snapshot outlives machine, disk and node; the address is the same, a terminal lives."""
    workspace = make_workspace(memory_mb=256).id
    served = Served(cloud, client, workspace)
    with Wire(served) as live, served.http() as http:
        number = new_terminal(http)
        live.run(number, "word=kept; cd /var")
    before = client.workspaces.get(workspace)
    ip = sh(client, workspace, "cat /etc/hosts")
    client.workspaces.snapshot(workspace)
    client.workspaces.destroy(workspace)
    killed = {"node": pids(cloud)["node"]}
    assert killed["node"].signal(signal.SIGKILL)
    until_whole(cloud, killed)
    client.workspaces.restore(workspace)
    assert client.workspaces.get(workspace).ready
    assert sh(client, workspace, "cat /etc/hosts") == ip
    served = Served(cloud, client, workspace)
    with Wire(served) as live:
        live.type(number, "echo $word-$PWD\n")
        live.until_output(number, "kept-/var")
    assert client.workspaces.get(workspace).name == before.name
    client.workspaces.restart(workspace)
    assert client.workspaces.info(workspace).snapshot is not None


class Served:
    """The runtime API of a workspace through the gateway, as the wire tests want it."""

    def __init__(self, cloud: Cloud, client: Bastide, workspace: str) -> None:
        self.url = cloud.environment["BASTIDE_GATEWAY_URL"]
        self._client = client
        self._workspace = workspace
        client.workspaces.runtime(workspace)
        self.token = gateway_token(cloud, workspace)

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


def gateway_token(cloud: Cloud, workspace: str) -> str:
    """A gateway token, runtime access enabled."""
    headers = {
        "X-Client-ID": cloud.environment["BASTIDE_CLIENT_ID"],
        "X-Client-Secret": cloud.environment["BASTIDE_CLIENT_SECRET"],
    }
    path = f"{cloud.environment['BASTIDE_API_URL']}/workspace/{workspace}/runtime-api-access/enable"
    answer = httpx.post(path, headers=headers, timeout=30, trust_env=False)
    return str(answer.raise_for_status().json()["token"])


def test_refusals(client: Bastide, make_workspace: Make) -> None:
    """Nothing to restore is 404, nothing to capture 409; both say what to do."""
    workspace = make_workspace(memory_mb=128).id
    with pytest.raises(NotFoundError, match="take one"):
        client.workspaces.restore(workspace)
    client.workspaces.stop(workspace)
    with pytest.raises(ConflictError, match="start it"):
        client.workspaces.snapshot(workspace)


def test_the_command_line(cloud: Cloud, workspace: Workspace) -> None:
    """Snapshot and restore as a person uses them, with progress on standard error."""
    name = workspace.id
    taken = cloud.run("ws", "snapshot", name, "--after", "stop")
    assert "stood still" in taken.stdout
    assert "capturing" in taken.stderr
    assert cloud.run("ws", "restore", name, check=False).returncode == 2
    restored = cloud.run("ws", "restore", name, "--yes")
    assert "restored" in restored.stdout
    assert cloud.json("ws", "snapshot", name)["memory_bytes"] > 0
