"""Start, stop, restart, delete: who wins, and what is left."""

from __future__ import annotations

import asyncio

import pytest
from tests.api.workspaces.cloud import Cloud, eventually

from bastide.domain.machine import MachineState


async def test_stop_and_start(cloud: Cloud) -> None:
    """A stopped workspace starts again at its address; both may be repeated."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    address = cloud.engine.machines[found["id"]].status.address
    for _ in range(2):
        stopped = await cloud.call("POST", f"{path}/stop")
        assert stopped["status"] == "stopped"
        assert stopped["workspace"]["info"]["user_requested_stop"]
        assert not stopped["workspace"]["ready"]
    for _ in range(2):
        started = await cloud.call("POST", f"{path}/start")
        assert started["status"] == "running"
        assert started["workspace"]["ready"]
        assert not started["workspace"]["info"]["user_requested_stop"]
    assert cloud.engine.machines[found["id"]].status.address == address
    assert [step for step, _ in cloud.engine.calls].count("start") == 2
    await cloud.call("POST", f"{path}/start", {"force": True})
    assert [step for step, _ in cloud.engine.calls].count("start") == 3


async def test_restart_is_another_boot(cloud: Cloud) -> None:
    """Restart stops and starts; of a stopped workspace it is a start."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    before = cloud.engine.machines[found["id"]].status.boot_id
    assert (await cloud.call("POST", f"{path}/restart"))["status"] == "running"
    assert cloud.engine.machines[found["id"]].status.boot_id != before
    await cloud.call("POST", f"{path}/stop")
    assert (await cloud.call("POST", f"{path}/restart"))["status"] == "running"


async def test_of_conflicting_calls_one_wins(cloud: Cloud) -> None:
    """While a stop is going on, a start gets 409 with the state, and a second stop joins."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["stop"] = asyncio.Event()
    stops = [asyncio.create_task(cloud.call("POST", f"{path}/stop")) for _ in range(2)]
    await cloud.until(found["id"], lambda each: each["status"] == "stopping")
    refused = await cloud.call("POST", f"{path}/start", status=409)
    assert refused["code"] == "conflict"
    assert refused["details"]["state"] == "stopping"
    cloud.engine.release("stop")
    assert [(await stop)["status"] for stop in stops] == ["stopped", "stopped"]
    assert [step for step, _ in cloud.engine.calls].count("stop") == 1


async def test_a_boot_that_fails_is_told(cloud: Cloud) -> None:
    """A start that fails is a 503 with the reason; the workspace stays stopped and startable."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/stop")
    cloud.engine.fail["start"] = 1
    refused = await cloud.call("POST", f"{path}/start", status=503)
    assert refused["code"] == "VM_UNAVAILABLE"
    assert refused["details"]["reason"] == "START_FAILED"
    assert "the fake fails at start" in refused["message"]
    assert (await cloud.get(found["id"]))["status"] == "stopped"
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"


async def test_deletion_is_asynchronous_and_repeatable(cloud: Cloud) -> None:
    """Delete answers at once, shows `deleting`, may be repeated, and leaves nothing."""
    found = await cloud.create(name="gone")
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["delete"] = asyncio.Event()
    for _ in range(2):
        assert (await cloud.call("DELETE", path))["accepted"]
    shown = await cloud.get(found["id"])
    assert shown["provisioning"]["phase"] == "deleting"
    assert shown["status"] == "stopping"
    await cloud.call("POST", f"{path}/start", status=409)
    await cloud.call("PUT", path, {"name": "x"}, status=409)
    cloud.engine.release("delete")
    await cloud.gone(found["id"])
    assert not cloud.engine.machines
    assert found["id"] not in cloud.edge.entries
    await cloud.call("DELETE", path, status=404)
    assert (await cloud.create(name="gone"))["slug"] == "gone"


@pytest.mark.parametrize("was", ["running", "stopped", "paused"])
async def test_reinstall_begins_anew(cloud: Cloud, was: str) -> None:
    """Machine and disk are made anew, also after a lost answer; the record stays."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    if was != "running":
        await cloud.call("POST", f"{path}/{'stop' if was == 'stopped' else 'pause'}")
    old = cloud.engine.machines[found["id"]]
    cloud.engine.lose["delete"] = 1
    done = await cloud.call("POST", f"{path}/reinstall")
    assert (done["status"], done["workspace"]["ready"]) == ("running", True)
    assert cloud.engine.machines[found["id"]] is not old
    assert (await cloud.get(found["id"]))["created_at"] == found["created_at"]
    assert not (await cloud.call("GET", "/workspace/archived"))["workspaces"]


async def test_a_reinstall_is_no_restart(cloud: Cloud) -> None:
    """Neither joins the other; one that does not come up is told and can be started."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["stop"] = asyncio.Event()
    restart = asyncio.create_task(cloud.call("POST", f"{path}/restart"))
    await eventually(lambda: ("stop", found["id"]) in cloud.engine.calls)
    assert "restarting" in (await cloud.call("POST", f"{path}/reinstall", status=409))["message"]
    cloud.engine.release("stop")
    await restart
    cloud.engine.fail["start"] = 1
    refused = await cloud.call("POST", f"{path}/reinstall", status=503)
    assert refused["details"]["reason"] == "REINSTALL_FAILED"
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"


@pytest.mark.parametrize("step", ["create", "start"])
async def test_deletion_supersedes_a_creation(cloud: Cloud, step: str) -> None:
    """A workspace can be deleted while it is being made; no machine is left behind."""
    cloud.engine.hold[step] = asyncio.Event()
    answer = await cloud.call("POST", "/workspace", status=201)
    workspace_id = answer["workspace"]["id"]
    await eventually(lambda: (step, workspace_id) in cloud.engine.calls)
    await cloud.call("DELETE", f"/workspace/{workspace_id}")
    await cloud.gone(workspace_id)
    cloud.engine.release(step)
    assert not cloud.engine.machines


async def test_deletion_waits_for_the_engine(cloud: Cloud) -> None:
    """A deletion is tried until the engine is back, whatever it refuses meanwhile."""
    found = await cloud.create()
    cloud.engine.fail["delete"] = 1
    cloud.engine.down = True
    await cloud.call("DELETE", f"/workspace/{found['id']}")
    await cloud.until(found["id"], lambda each: "trying again" in each["provisioning"]["message"])
    cloud.engine.down = False
    await cloud.gone(found["id"])
    assert not cloud.engine.machines


async def test_a_lost_machine_is_made_again_by_start(cloud: Cloud) -> None:
    """A start makes anew what the engine no longer knows."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/stop")
    cloud.engine.machines.clear()
    await cloud.call("POST", f"{path}/start")
    assert cloud.engine.machines[found["id"]].status.state is MachineState.RUNNING


async def test_lifecycle_and_info(cloud: Cloud) -> None:
    """Lifecycle has every field of the specification; info tells tier and boot timings."""
    found = await cloud.create()
    shown = await cloud.call("GET", f"/workspace/{found['id']}/lifecycle")
    assert {key: shown[key] for key in ("mode", "status", "restart_policy", "max_restarts")} == {
        "mode": "permanent",
        "status": "running",
        "restart_policy": "always",
        "max_restarts": 0,
    }
    assert (shown["restart_info"], shown["ttl"], shown["ttl_action"]) == ({}, None, None)
    assert shown["remove_on_exit"] is False
    assert shown["uptime"] >= 0
    assert shown["snapshot_supported"] is False
    assert shown["snapshot_unavailable_reason"]
    info = (await cloud.call("GET", f"/workspace/{found['id']}/info"))["info"]
    assert info["tier"] == "container"
    assert info["state"] == "running"
    assert info["boot_timings_ms"] == {"total": 1.0}
