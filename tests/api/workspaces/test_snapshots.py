"""Snapshot and restore: what they answer, refuse, and leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.machine import MachineState
from bastide.services.views import WorkspaceView


@pytest.fixture
def world(world: World) -> World:
    """A server whose engine takes snapshots."""
    world.engine.can_snapshot = True
    return world


@pytest.mark.parametrize(
    ("body", "status", "wish"),
    [
        (None, "running", False),
        ({}, "running", False),
        ({"after": "resume"}, "running", False),
        ({"after": "paused"}, "paused", False),
        ({"after": "stop"}, "stopped", True),
    ],
)
async def test_after_is_what_it_is_then(
    cloud: Cloud, body: object, status: str, *, wish: bool
) -> None:
    """`after` decides, running by default; it stays so, and the snapshot is told."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    taken = await cloud.call("POST", f"{path}/snapshot", body)
    assert taken["status"] == status
    assert taken["snapshot"]["size_bytes"] == 2**21
    assert taken["workspace"]["ready"] == (status == "running")
    assert taken["workspace"]["info"]["user_requested_stop"] == wish
    assert (await cloud.call("GET", f"{path}/info"))["snapshot"] == taken["snapshot"]
    restored = await cloud.call("POST", f"{path}/restore")
    assert restored["status"] == "running"
    assert restored["workspace"]["ready"]
    assert restored["snapshot"] == taken["snapshot"]


async def test_a_snapshot_counts_in_the_quota(cloud: Cloud) -> None:
    """What it takes is part of the disk that is owned, also once its machine is destroyed."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    disk = (await cloud.call("GET", "/workspace/quota"))["pool_usage"]["disk_size_mb"]
    await cloud.call("POST", f"{path}/snapshot")
    for verb, call in (("GET", path), ("POST", f"{path}/stop"), ("DELETE", f"{path}/lifecycle")):
        await cloud.call(verb, call)
        used = (await cloud.call("GET", "/workspace/quota"))["pool_usage"]
        assert (used["snapshot_mb"], used["disk_size_mb"]) == (2, disk + 2)
    await cloud.call("DELETE", path)
    async with asyncio.timeout(60):
        while used["disk_size_mb"]:
            used = (await cloud.call("GET", "/workspace/quota"))["pool_usage"]
    assert used["snapshot_mb"] == 0


async def test_a_restored_one_can_be_reached_as_before(cloud: Cloud) -> None:
    """Destroyed and restored: same address, the edge open, no longer archived."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    before = cloud.edge.entries[found["id"]]
    await cloud.call("POST", f"{path}/snapshot")
    await cloud.call("DELETE", f"{path}/lifecycle")
    assert cloud.edge.entries[found["id"]].state == "down"
    restored = await cloud.call("POST", f"{path}/restore")
    assert restored["status"] == "running"
    assert cloud.edge.entries[found["id"]] == before
    archived = await cloud.call("GET", "/workspace/archived")
    assert not archived["workspaces"]


async def test_refusals_say_what_to_do(cloud: Cloud) -> None:
    """Nothing to restore is 404, a stopped workspace cannot be captured, a wrong word is 422."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    none = await cloud.call("POST", f"{path}/restore", status=404)
    assert "POST /workspace/:id/snapshot" in none["message"]
    wrong = await cloud.call("POST", f"{path}/snapshot", {"after": "sleep"}, status=422)
    assert wrong["details"]["field"] == "after"
    await cloud.call("POST", f"{path}/stop")
    stopped = await cloud.call("POST", f"{path}/snapshot", status=409)
    assert "start it" in stopped["message"]


async def test_an_engine_that_cannot_is_501_with_its_reason(cloud: Cloud) -> None:
    """The reason is the engine's, and nothing is begun."""
    cloud.engine.can_snapshot = False
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    refused = await cloud.call("POST", f"{path}/snapshot", status=501)
    assert "a fake keeps no memory" in refused["message"]
    assert (await cloud.lifecycle(found["id"]))["snapshot_unavailable_reason"]
    assert ("snapshot", found["id"]) not in cloud.engine.calls


async def test_what_conflicts_waits_or_is_refused(cloud: Cloud) -> None:
    """While one is taken, power calls and another snapshot are 409; deleting is not."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["snapshot"] = asyncio.Event()
    taking = asyncio.create_task(cloud.call("POST", f"{path}/snapshot", {"after": "stop"}))
    await eventually(lambda: ("snapshot", found["id"]) in cloud.engine.calls)
    for verb in ("stop", "pause", "restart", "snapshot", "restore"):
        if verb == "restore":
            await cloud.call("POST", f"{path}/{verb}", status=404)
            continue
        refused = await cloud.call("POST", f"{path}/{verb}", status=409)
        assert "captured" in refused["message"]
    cloud.engine.release("snapshot")
    assert (await taking)["status"] == "stopped"


async def test_a_failing_snapshot_leaves_it_running(cloud: Cloud) -> None:
    """The error names the cause; the workspace is ready and its edge open as before."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    cloud.engine.fail["snapshot"] = 1
    failed = await cloud.call("POST", f"{path}/snapshot", {"after": "stop"}, status=503)
    assert "the fake fails at snapshot" in failed["message"]
    after = await cloud.call("GET", path)
    assert after["workspace"]["ready"]
    assert cloud.edge.entries[found["id"]].state == "open"
    assert (await cloud.call("POST", f"{path}/snapshot", {"after": "stop"}))["status"] == "stopped"


async def test_a_failing_restore_leaves_it_as_it_is(cloud: Cloud) -> None:
    """What the machine is then is shown, and a start is possible."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/snapshot", {"after": "stop"})
    cloud.engine.fail["restore"] = 1
    failed = await cloud.call("POST", f"{path}/restore", status=503)
    assert "the fake fails at restore" in failed["message"]
    assert (await cloud.call("GET", path))["workspace"]["status"] == "stopped"
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"


@pytest.mark.parametrize("step", ["snapshot", "restore"])
async def test_a_lost_answer_is_no_second_time(cloud: Cloud, step: str) -> None:
    """When the engine has done it and the answer was lost, the next try sees that."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    if step == "restore":
        await cloud.call("POST", f"{path}/snapshot")
    cloud.engine.lose[step] = 1
    body = {"after": "stop"} if step == "snapshot" else None
    done = await cloud.call("POST", f"{path}/{step}", body)
    assert done["status"] == ("stopped" if step == "snapshot" else "running")
    assert [call for call, _ in cloud.engine.calls].count(step) == 1


async def test_one_that_is_left_frozen_goes_on_when_it_is_tried_again(cloud: Cloud) -> None:
    """A node that died amid a snapshot left the machine frozen; the next try lets it go on."""
    found = await cloud.create()
    machine = cloud.engine.machines[found["id"]]
    cloud.engine.hold["snapshot"] = asyncio.Event()
    taking = asyncio.create_task(cloud.call("POST", f"/workspace/{found['id']}/snapshot"))
    await eventually(lambda: ("snapshot", found["id"]) in cloud.engine.calls)
    frozen = {"state": MachineState.PAUSED}
    machine.status = machine.status.model_copy(update=frozen)
    cloud.engine.release("snapshot")
    assert (await taking)["status"] == "running"


async def test_a_paused_one_stays_paused(cloud: Cloud) -> None:
    """Without `after` it is what it was."""
    found = await cloud.create()
    await cloud.call("POST", f"/workspace/{found['id']}/pause")
    taken = await cloud.call("POST", f"/workspace/{found['id']}/snapshot")
    assert taken["status"] == "paused"


async def test_one_queued_by_an_earlier_version_is_worked(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say what is to be then: what was before."""
    found = await cloud.create()
    await cloud.call("POST", f"/workspace/{found['id']}/pause")
    ask = cloud.services.power.do

    async def earlier(*args: Any, **more: Any) -> WorkspaceView:
        return await ask(*args, **{**more, "params": {"after": None}})

    monkeypatch.setattr(cloud.services.power, "do", earlier)
    taken = await cloud.call("POST", f"/workspace/{found['id']}/snapshot")
    assert taken["status"] == "paused"


async def test_a_workspace_removed_on_exit_is_not_stopped_by_its_snapshot(cloud: Cloud) -> None:
    """A snapshot that would delete what it has captured is refused."""
    found = await cloud.create(config={"ttl": "1h", "remove_on_exit": True})
    refused = await cloud.call(
        "POST", f"/workspace/{found['id']}/snapshot", {"after": "stop"}, status=409
    )
    assert "remove_on_exit" in refused["message"]
    assert cloud.engine.machines[found["id"]].status.state is MachineState.RUNNING


async def test_the_snapshot_goes_with_the_workspace(cloud: Cloud) -> None:
    """Deleting removes it too."""
    found = await cloud.create()
    await cloud.call("POST", f"/workspace/{found['id']}/snapshot")
    await cloud.call("DELETE", f"/workspace/{found['id']}")
    await eventually(lambda: not cloud.engine.snapshots)
