"""Restarts after a crash: back-off, history, and what a reboot of the host does."""

from __future__ import annotations

import asyncio

import pytest
from tests.api.workspaces.cloud import DEADLINE, Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.machine import MachineExit, MachineState


async def test_restarts_back_off(cloud: Cloud) -> None:
    """A machine that ends again and again waits 1, 2, 4 seconds; count and history are told."""
    found = await cloud.create(config={"restart_policy": "on-failure", "max_restarts": 3})
    machine = cloud.engine.machines[found["id"]]
    delays = []
    for code in (1, 2, 3):
        cloud.engine.end(found["id"], MachineExit(at=now(), code=code, oom=code == 2))
        await cloud.until(found["id"], lambda each: each["status"] == "starting")
        delays.append(await cloud.hurry(found["id"]))
        await eventually(lambda: machine.status.state is MachineState.RUNNING)
        await cloud.until(found["id"], lambda each: each["ready"])
    assert [round(delay) for delay in delays] == [1, 2, 4]
    cloud.engine.end(found["id"], MachineExit(at=now(), signal=9))
    await cloud.until(found["id"], lambda each: each["status"] == "stopped")
    info = (await cloud.lifecycle(found["id"]))["restart_info"]
    assert info["count"] == 3
    history = info["history"]
    assert [(end["code"], end["signal"], end["oom"]) for end in history] == [
        (None, 9, False), (3, None, False), (2, None, True), (1, None, False)
    ]  # fmt: skip
    assert [end["restarted"] for end in history] == [False, True, True, True]
    assert (await cloud.get(found["id"]))["info"]["user_requested_stop"] is False


async def test_a_restart_that_fails_is_tried_again(cloud: Cloud) -> None:
    """A restart of ours whose boot fails waits longer and comes up with the next try."""
    found = await cloud.create()
    machine = cloud.engine.machines[found["id"]]
    cloud.engine.fail["start"] = 1
    cloud.engine.end(found["id"], MachineExit(at=now(), code=1))
    await cloud.until(found["id"], lambda each: each["status"] == "starting")
    await cloud.hurry(found["id"])
    await eventually(lambda: cloud.engine.fail["start"] == 0)
    await cloud.until(found["id"], lambda each: each["status"] == "starting")
    await eventually(lambda: machine.status.state is MachineState.RUNNING)
    history = (await cloud.lifecycle(found["id"]))["restart_info"]["history"]
    assert [end["cause"] for end in history] == ["failed_start", "exit"]


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure", "no"])
async def test_after_a_reboot_of_the_host(world: World, policy: str) -> None:
    """Machines found ended by nobody start again under `always` and `unless-stopped` only."""
    async with world.cloud() as cloud:
        found = await cloud.create(config={"restart_policy": policy})
    world.engine.end(found["id"], MachineExit(at=now()))
    comes_back = policy in {"always", "unless-stopped"}
    async with world.cloud() as cloud:
        async with asyncio.timeout(DEADLINE):
            while not (info := (await cloud.lifecycle(found["id"]))["restart_info"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (info["count"], info["history"][0]["restarted"]) == (0, comes_back)
        wanted = "running" if comes_back else "stopped"
        await cloud.until(found["id"], lambda each: each["status"] == wanted)
