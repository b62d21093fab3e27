"""What happens to machines by themselves."""

from __future__ import annotations

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.machine import MachineExit, MachineState

CRASH = MachineExit(at=now(), code=1)
DONE = MachineExit(at=now(), code=0)


@pytest.mark.parametrize(
    ("policy", "ended", "again"),
    [
        ("no", CRASH, False),
        ("always", DONE, True),
        ("on-failure", DONE, False),
        ("on-failure", CRASH, True),
        ("unless-stopped", CRASH, True),
    ],
)
async def test_restart_policies_are_kept(
    cloud: Cloud, policy: str, ended: MachineExit, *, again: bool
) -> None:
    """A machine that ends by itself is started again, or not, as its policy says."""
    found = await cloud.create(config={"restart_policy": policy})
    boot = cloud.engine.machines[found["id"]].status.boot_id
    cloud.engine.end(found["id"], ended.model_copy(update={"at": now()}))
    if again:
        machine = cloud.engine.machines[found["id"]]
        await eventually(lambda: machine.status.state is MachineState.RUNNING)
        assert machine.status.boot_id != boot
        await cloud.until(found["id"], lambda each: each["ready"])
        info = (await cloud.call("GET", f"/workspace/{found['id']}/lifecycle"))["restart_info"]
        assert info["count"] == 1
        assert info["history"][0]["code"] == ended.code
    else:
        shown = await cloud.until(found["id"], lambda each: each["status"] == "stopped")
        assert shown["info"]["user_requested_stop"] is False
        info = (await cloud.call("GET", f"/workspace/{found['id']}/info"))["info"]
        assert info["last_exit"]["code"] == ended.code


async def test_max_restarts_ends_it(cloud: Cloud) -> None:
    """After as many restarts as allowed it stays stopped; a person's start counts anew."""
    found = await cloud.create(config={"restart_policy": "always", "max_restarts": 1})
    machine = cloud.engine.machines[found["id"]]
    cloud.engine.end(found["id"], CRASH.model_copy(update={"at": now()}))
    await eventually(lambda: machine.status.state is MachineState.RUNNING)
    await cloud.until(found["id"], lambda each: each["ready"])
    cloud.engine.end(found["id"], CRASH.model_copy(update={"at": now()}))
    await cloud.until(found["id"], lambda each: each["status"] == "stopped")
    started = await cloud.call("POST", f"/workspace/{found['id']}/start")
    assert started["status"] == "running"
    assert (await cloud.call("GET", f"/workspace/{found['id']}/lifecycle"))["restart_info"] == {}


async def test_a_person_overrules_a_waiting_restart(cloud: Cloud) -> None:
    """While a restart waits for its delay, a stop is a stop and the restart is given up."""
    found = await cloud.create()
    cloud.engine.end(found["id"], CRASH.model_copy(update={"at": now()}))
    await cloud.until(found["id"], lambda each: each["status"] == "starting")
    stopped = await cloud.call("POST", f"/workspace/{found['id']}/stop")
    assert stopped["status"] == "stopped"
    assert cloud.engine.machines[found["id"]].status.state is MachineState.STOPPED


async def test_machines_lost_with_their_host_come_back(world: World) -> None:
    """What should run is made and started again after every machine is gone; the rest is not."""
    async with world.cloud() as cloud:
        running, stopped = await cloud.create(), await cloud.create()
        await cloud.call("POST", f"/workspace/{stopped['id']}/stop")
    world.engine.machines.clear()
    async with world.cloud() as cloud:
        await eventually(lambda: list(world.engine.machines) == [running["id"]])
        await cloud.until(running["id"], lambda each: each["ready"])
        assert (await cloud.get(stopped["id"]))["status"] == "stopped"


async def test_a_node_that_goes_away_and_comes_back(cloud: Cloud) -> None:
    """While the engine is away nothing is changed; what ended meanwhile is seen afterwards."""
    found = await cloud.create(config={"restart_policy": "no"})
    cloud.engine.down = True
    cloud.engine.drop_listeners()
    assert (await cloud.get(found["id"]))["status"] == "running"
    cloud.engine.end(found["id"], DONE.model_copy(update={"at": now()}))
    cloud.engine.down = False
    await cloud.until(found["id"], lambda each: each["status"] == "stopped")
