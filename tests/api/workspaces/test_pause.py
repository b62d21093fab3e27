"""Pause, resume and destroy."""

from __future__ import annotations

import asyncio

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.machine import MachineExit, MachineState


async def test_pause_and_resume(cloud: Cloud) -> None:
    """Frozen and let go in the same boot; both may be repeated; the edge is told each time."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    boot = cloud.engine.machines[found["id"]].status.boot_id
    for _ in range(2):
        paused = await cloud.call("POST", f"{path}/pause")
        assert paused["status"] == "paused"
        assert not paused["workspace"]["ready"]
        assert not paused["workspace"]["info"]["user_requested_stop"]
    assert cloud.edge.entries[found["id"]].state == "paused"
    assert (await cloud.lifecycle(found["id"]))["status"] == "paused"
    for _ in range(2):
        resumed = await cloud.call("POST", f"{path}/resume")
        assert resumed["status"] == "running"
        assert resumed["workspace"]["ready"]
    assert cloud.edge.entries[found["id"]].state == "open"
    assert cloud.engine.machines[found["id"]].status.boot_id == boot
    assert [step for step, _ in cloud.engine.calls].count("pause") == 1


async def test_the_edge_is_told_before_the_machine_freezes(cloud: Cloud) -> None:
    """From before the freeze no new request is passed on, where it would hang."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    cloud.engine.hold["pause"] = asyncio.Event()
    pause = asyncio.create_task(cloud.call("POST", f"{path}/pause"))
    await eventually(lambda: ("pause", found["id"]) in cloud.engine.calls)
    assert cloud.edge.entries[found["id"]].state == "paused"
    assert cloud.engine.machines[found["id"]].status.state is MachineState.RUNNING
    refused = await cloud.call("POST", f"{path}/stop", status=409)
    assert "being paused" in refused["message"]
    cloud.engine.release("pause")
    assert (await pause)["status"] == "paused"


@pytest.mark.parametrize(
    ("state", "verb", "says"),
    [
        ("stopped", "pause", "start it"),
        ("stopped", "resume", "start it"),
        ("paused", "start", "resume"),
    ],
)
async def test_wrong_states_are_told(cloud: Cloud, state: str, verb: str, says: str) -> None:
    """What cannot be done in a state is 409 with the state and what to do."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/{'stop' if state == 'stopped' else 'pause'}")
    refused = await cloud.call("POST", f"{path}/{verb}", status=409)
    assert refused["details"]["state"] == state
    assert says in refused["message"]


async def test_a_paused_one_can_be_stopped_and_restarted(cloud: Cloud) -> None:
    """Stop and restart do not need it to be resumed first."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/pause")
    assert (await cloud.call("POST", f"{path}/stop"))["status"] == "stopped"
    await cloud.call("POST", f"{path}/start")
    await cloud.call("POST", f"{path}/pause")
    assert (await cloud.call("POST", f"{path}/restart"))["status"] == "running"


async def test_a_pause_that_fails_leaves_it_running(cloud: Cloud) -> None:
    """A refused freeze is told, and the workspace is reached as before."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    cloud.engine.fail["pause"] = 1
    refused = await cloud.call("POST", f"{path}/pause", status=503)
    assert refused["details"]["reason"] == "PAUSE_FAILED"
    shown = await cloud.get(found["id"])
    assert shown["status"] == "running"
    assert shown["ready"]
    assert cloud.edge.entries[found["id"]].state == "open"


async def test_an_engine_that_cannot_pause_says_so(cloud: Cloud) -> None:
    """Nothing changes, and lifecycle tells it before anybody tries."""
    found = await cloud.create()
    cloud.engine.can_pause = False
    await cloud.call("POST", f"/workspace/{found['id']}/pause", status=503)
    assert (await cloud.get(found["id"]))["status"] == "running"


async def test_a_paused_one_lost_with_its_host_rests(world: World) -> None:
    """Its memory is gone, so nothing goes on: it is stopped and can be started."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        await cloud.call("POST", f"/workspace/{found['id']}/pause")
    world.engine.end(found["id"], MachineExit(at=now()))
    async with world.cloud() as cloud:
        await cloud.until(found["id"], lambda each: each["status"] == "stopped")
        assert (await cloud.lifecycle(found["id"]))["restart_info"]["history"][0]["cause"] == "lost"
        started = await cloud.call("POST", f"/workspace/{found['id']}/start")
        assert started["status"] == "running"


async def test_a_paused_one_stays_paused_over_a_restart(world: World) -> None:
    """A control plane that comes back leaves frozen what was frozen."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        await cloud.call("POST", f"/workspace/{found['id']}/pause")
    async with world.cloud() as cloud:
        await cloud.services.database.ping()
        assert (await cloud.get(found["id"]))["status"] == "paused"
        assert (await cloud.call("POST", f"/workspace/{found['id']}/resume"))["status"] == "running"


async def test_destroy_keeps_the_record(cloud: Cloud) -> None:
    """Machine and disk go, the record is listed as archived, and a start begins anew."""
    found = await cloud.create(name="kept")
    path = f"/workspace/{found['id']}"
    for _ in range(2):
        gone = await cloud.call("DELETE", f"{path}/lifecycle")
        assert gone["status"] == "stopped"
    assert not cloud.engine.machines
    shown = (await cloud.call("GET", "/workspace/archived"))["workspaces"]
    assert [(each["id"], each["archived_reason"], each["deleted"]) for each in shown] == [
        (found["id"], "destroyed", False)
    ]
    assert (await cloud.get(found["id"]))["name"] == "kept"
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"
    assert (await cloud.call("GET", "/workspace/archived"))["total"] == 0


async def test_destroy_takes_the_place_of_what_is_going_on(cloud: Cloud) -> None:
    """It is forceful: a stop that hangs is superseded, and whoever waited for it is told."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["stop"] = asyncio.Event()
    stop = asyncio.create_task(cloud.call("POST", f"{path}/stop", status=409))
    await eventually(lambda: ("stop", found["id"]) in cloud.engine.calls)
    await cloud.call("DELETE", f"{path}/lifecycle")
    assert "given up" in (await stop)["message"]
    cloud.engine.release("stop")
    assert not cloud.engine.machines
