"""Sizes of workspaces: saved, hot, or by another boot."""

from __future__ import annotations

import asyncio

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.machine import MachineState


async def test_saved_for_the_next_start(cloud: Cloud) -> None:
    """Without `apply` the machine keeps its sizes until it is started again."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    done = await cloud.call("PUT", f"{path}/resources", {"cpus": 2, "disk_size_mb": 8192})
    assert done["updated"] == {"cpus": 2, "disk_size_mb": 8192}
    assert done["relaunched"] is False
    shown = (await cloud.call("GET", f"{path}/resources"))["resources"]
    assert (shown["cpus"], shown["memory_mb"]) == (2, 512)
    assert shown["disk_size_mb"] == shown["writable_size_mb"] == 8192
    assert (shown["cpu_config"], shown["status"]) == ({"quota": "standard"}, "running")
    machine = cloud.engine.machines[found["id"]]
    assert machine.spec.resources.cpus == 1
    await cloud.call("POST", f"{path}/restart")
    assert (machine.spec.resources.cpus, machine.spec.resources.disk_mb) == (2, 8192)


async def test_processor_and_memory_change_hot(cloud: Cloud) -> None:
    """With `apply` they are in force at once, in the same boot; asking again changes nothing."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    machine = cloud.engine.machines[found["id"]]
    boot = machine.status.boot_id
    body = {"cpus": 0.5, "memory_mb": 1024, "apply": True}
    done = await cloud.call("PATCH", path, body)
    assert done["updated"] == {"cpus": 0.5, "memory_mb": 1024}
    assert done["relaunched"] is False
    assert machine.status.boot_id == boot
    assert (machine.spec.resources.cpus, machine.spec.resources.memory_mb) == (0.5, 1024)
    assert (await cloud.get(found["id"]))["ready"]
    assert (await cloud.call("PATCH", path, body))["updated"] == {}


async def test_a_larger_disk_boots_it_anew(cloud: Cloud) -> None:
    """A disk grows by another boot, which is told; of a stopped workspace it waits."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    machine = cloud.engine.machines[found["id"]]
    boot = machine.status.boot_id
    done = await cloud.call("PUT", path, {"writable_size_mb": 8192, "apply": True})
    assert done["relaunched"] is True
    assert machine.status.boot_id != boot
    assert machine.spec.resources.disk_mb == 8192
    await cloud.call("POST", f"/workspace/{found['id']}/stop")
    done = await cloud.call("PUT", path, {"disk_size_mb": 9000, "apply": True})
    assert done["relaunched"] is False
    assert machine.status.state is MachineState.STOPPED


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"cpus": 64}, "cpus"),
        ({"memory_mb": 64}, "memory_mb"),
        ({"disk_size_mb": 1024}, "disk_size_mb"),
        ({"cpus": "2"}, "cpus"),
        ({"apply": "yes", "cpus": 1}, "apply"),
    ],
)
async def test_wrong_sizes_are_named(cloud: Cloud, body: dict[str, object], field: str) -> None:
    """Out of bounds, a smaller disk, or no number: 422 with the figure."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    refused = await cloud.call("PUT", path, body, status=422)
    assert refused["details"]["field"] == field
    if field == "disk_size_mb":
        assert "4096 MiB, of which 1 MiB are used" in refused["message"]


@pytest.mark.parametrize(
    ("limit", "field", "less", "most"),
    [
        ({"max_cpus": 1.5}, "cpus", 1, 1.5),
        ({"max_memory_mb": 768}, "memory_mb", 512, 768),
        ({"max_disk_mb": 6000}, "disk_size_mb", 4096, 6000),
    ],
)
async def test_an_accounts_own_sizes(
    cloud: Cloud, limit: dict[str, float], field: str, less: float, most: float
) -> None:
    """They are the bounds; lowered later, they take nothing away that nobody asks to change."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    await cloud.limit(**limit)
    refused = await cloud.call("PUT", path, {field: most * 2}, status=422)
    assert (refused["details"]["field"], f"and {most:g} for" in refused["message"]) == (field, True)
    assert (await cloud.call("PUT", path, {field: most}))["updated"] == {field: most}
    await cloud.limit(**dict.fromkeys(limit, less))
    other = {"memory_mb": 256} if field == "cpus" else {"cpus": 2}
    done = await cloud.call("PUT", path, other)
    assert done["updated"] == other
    assert done["resources"][field] == most


@pytest.mark.parametrize("why", ["in use", "tier"])
async def test_what_does_not_go_hot_takes_a_boot(cloud: Cloud, why: str) -> None:
    """Less memory than is in use, or a tier that cannot: `apply` boots it anew, and says so."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    cloud.engine.memory_in_use = 300 if why == "in use" else 1
    cloud.engine.can_resize = why != "tier"
    machine = cloud.engine.machines[found["id"]]
    boot = machine.status.boot_id
    body = {"cpus": 4, "memory_mb": 256, "apply": True}
    done = await cloud.call("PUT", path, body)
    assert done["relaunched"] is True
    assert done["updated"] == {"cpus": 4, "memory_mb": 256}
    assert machine.status.boot_id != boot
    assert (machine.spec.resources.cpus, machine.spec.resources.memory_mb) == (4, 256)
    assert done["resources"]["status"] == "running"


@pytest.mark.parametrize("step", ["stop", "start"])
async def test_a_lost_answer_ends_in_one_boot(cloud: Cloud, step: str) -> None:
    """An engine that is away after it stopped or booted the machine: it goes on from there."""
    found = await cloud.create()
    cloud.engine.can_resize = False
    cloud.engine.lose[step] = 1
    path = f"/workspace/{found['id']}/resources"
    done = await cloud.call("PUT", path, {"cpus": 2, "apply": True})
    assert (done["relaunched"], done["resources"]["status"]) == (True, "running")
    assert cloud.engine.machines[found["id"]].spec.resources.cpus == 2
    assert cloud.engine.calls.count(("stop", found["id"])) == 1 + (step == "stop")


async def test_a_resize_that_fails_is_taken_back(cloud: Cloud) -> None:
    """A machine that does not boot with its new sizes has its old ones, and can be started."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.can_resize = False
    cloud.engine.fail["start"] = 1
    body = {"cpus": 4, "apply": True}
    refused = await cloud.call("PUT", f"{path}/resources", body, status=503)
    assert refused["details"]["reason"] == "RESIZE_FAILED"
    shown = (await cloud.call("GET", f"{path}/resources"))["resources"]
    assert (shown["cpus"], shown["status"]) == (1, "stopped")
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"


async def test_a_paused_one_is_not_resized_hot(cloud: Cloud) -> None:
    """409 with what to do; saving for the next start works."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    await cloud.call("POST", f"/workspace/{found['id']}/pause")
    refused = await cloud.call("PUT", path, {"cpus": 2, "apply": True}, status=409)
    assert "apply: false" in refused["message"]
    assert (await cloud.call("GET", path))["resources"]["cpus"] == 1
    assert (await cloud.call("PUT", path, {"cpus": 2}))["updated"] == {"cpus": 2}


@pytest.mark.parametrize("call", ["restart", "start", "create"])
async def test_a_boot_with_older_sizes_is_not_passed_over(cloud: Cloud, call: str) -> None:
    """While it comes up `apply` is 409: that boot has read its sizes. Saving them works."""
    cloud.engine.hold["start"] = held = asyncio.Event()
    if call == "create":
        found = await cloud.call("POST", "/workspace", {"image": "debian-12"}, status=201)
        found = found["workspace"]
    else:
        held.set()
        found = await cloud.create()
        if call == "start":
            await cloud.call("POST", f"/workspace/{found['id']}/stop")
        held.clear()
    path = f"/workspace/{found['id']}"
    before = cloud.engine.calls.count(("start", found["id"]))
    work = None if call == "create" else asyncio.create_task(cloud.call("POST", f"{path}/{call}"))
    await eventually(lambda: cloud.engine.calls.count(("start", found["id"])) > before)
    body = {"memory_mb": 1024, "apply": True}
    refused = await cloud.call("PATCH", f"{path}/resources", body, status=409)
    assert "apply: false" in refused["message"]
    assert refused["details"]["state"]
    assert (await cloud.call("GET", f"{path}/resources"))["resources"]["memory_mb"] == 512
    saved = await cloud.call("PATCH", f"{path}/resources", {"memory_mb": 1024})
    assert saved["updated"] == {"memory_mb": 1024}
    cloud.engine.release("start")
    if work is not None:
        await work
    await cloud.until(found["id"], lambda each: each["ready"])


async def test_two_resizes_do_not_mix(cloud: Cloud) -> None:
    """While one is going on another is refused, not joined."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/resources"
    cloud.engine.hold["resize"] = asyncio.Event()
    first = asyncio.create_task(cloud.call("PUT", path, {"cpus": 2, "apply": True}))
    await eventually(lambda: ("resize", found["id"]) in cloud.engine.calls)
    refused = await cloud.call("PUT", path, {"cpus": 4, "apply": True}, status=409)
    assert "being resized" in refused["message"]
    cloud.engine.release("resize")
    assert (await first)["updated"] == {"cpus": 2}
    assert (await cloud.call("GET", path))["resources"]["cpus"] == 2


async def test_a_resize_survives_the_death_of_its_api(world: World) -> None:
    """One that was going on when the api died is done when another is there."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        path = f"/workspace/{found['id']}/resources"
        world.engine.hold["resize"] = asyncio.Event()
        lost = asyncio.create_task(cloud.call("PUT", path, {"cpus": 2, "apply": True}))
        await eventually(lambda: ("resize", found["id"]) in world.engine.calls)
        lost.cancel()
    world.engine.hold.clear()
    async with world.cloud() as cloud:
        machine = world.engine.machines[found["id"]]
        await eventually(lambda: machine.spec.resources.cpus == 2)
        await cloud.until(found["id"], lambda each: each["ready"])
