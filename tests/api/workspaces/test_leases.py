"""Temporary workspaces: how leases begin, are renewed, end, and what wins a race."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.machine import MachineExit, MachineState
from bastide.pipelines.leases import Leases
from bastide.pipelines.tools import Tools
from bastide.store.tables import Operation
from bastide.store.workspaces import Workspaces

HOUR = timedelta(hours=1)


def pipeline(cloud: Cloud) -> Leases:
    """A second worker of leases, as another process would run it."""
    services = cloud.services
    power = services.power
    tools = Tools(
        database=services.database,
        queue=power._queue,
        engine=cloud.engine,
        reach=services.runtime_access._reach,
        gateway=services.runtime_access._gateway,
        time=cloud.world.time,
    )
    return Leases(tools)


async def temporary(cloud: Cloud, **config: Any) -> str:
    """A ready temporary workspace with a lease of an hour."""
    found = await cloud.create(mode="temporary", config={"ttl": "1h", **config})
    return str(found["id"])


def ends_in(shown: dict[str, Any], since: datetime | None = None) -> float:
    """Seconds until the lease ends, from now or from a moment before."""
    return (datetime.fromisoformat(shown["ttl_expires_at"]) - (since or now())).total_seconds()


async def test_a_temporary_workspace_at_creation(cloud: Cloud) -> None:
    """`config.ttl` makes it temporary, locks its restart policy and begins when it is ready."""
    found = await cloud.create(config={"ttl": "90m", "ttl_action": "remove", "remove_on_exit": True,
                                       "restart_policy": "always"})  # fmt: skip
    shown = await cloud.lifecycle(found["id"])
    assert (found["mode"], shown["mode"]) == ("temporary", "temporary")
    assert (shown["ttl"], shown["ttl_action"]) == ("90m", "remove")
    assert shown["remove_on_exit"] is True
    assert shown["restart_policy"] == "no"
    assert shown["expires_at"] == shown["ttl_expires_at"]
    assert 5395 < ends_in(shown) <= 5401
    assert found["lifecycle"]["ttl"] == "90m"


async def test_conversions_are_configuration_only(cloud: Cloud) -> None:
    """Permanent to temporary and back, hot: the machine keeps its boot; policies follow."""
    found = await cloud.create(config={"restart_policy": "on-failure"})
    path = f"/workspace/{found['id']}/lifecycle"
    boot = cloud.engine.machines[found["id"]].status.boot_id
    shown = await cloud.call("POST", f"{path}/temporary", {"ttl": 3600})
    assert (shown["ttl"], shown["ttl_action"], shown["restart_policy"]) == ("1h", "stop", "no")
    assert 3595 < ends_in(shown) <= 3601
    assert (await cloud.get(found["id"]))["mode"] == "temporary"
    shown = await cloud.call("POST", f"{path}/permanent")
    assert (shown["mode"], shown["restart_policy"], shown["ttl"]) == ("permanent", "always", None)
    assert (shown["ttl_action"], shown["remove_on_exit"], shown["expires_at"]) == (
        None,
        False,
        None,
    )
    shown = await cloud.call("POST", f"{path}/permanent", {"restart_policy": "unless-stopped"})
    assert shown["restart_policy"] == "unless-stopped"
    assert cloud.engine.machines[found["id"]].status.boot_id == boot
    assert await pipeline(cloud).look() == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "temporary", {}, "ttl"),
        ("POST", "temporary", {"ttl": "1 fortnight"}, "ttl"),
        ("POST", "temporary", {"ttl": 0}, "ttl"),
        ("POST", "temporary", {"ttl": "1h", "ttl_action": "suspend"}, "ttl_action"),
        ("POST", "temporary", {"ttl": "1h", "restart_policy": "always"}, "restart_policy"),
        ("POST", "permanent", {"restart_policy": "sometimes"}, "restart_policy"),
        ("PUT", "ttl", {"ttl": "1h", "restart_policy": "always"}, "restart_policy"),
        ("PUT", "ttl", {}, "body"),
        ("PUT", "ttl", {"ttl_action": "explode"}, "ttl_action"),
    ],
)
async def test_wrong_bodies_are_named(
    cloud: Cloud, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    """A wrong field is a 422 that names it; `suspend` is refused with what to use instead."""
    workspace = await temporary(cloud)
    refused = await cloud.call(method, f"/workspace/{workspace}/lifecycle/{path}", body, status=422)
    assert refused["details"]["field"] == field
    if body.get("ttl_action") == "suspend":
        assert '"pause"' in refused["message"]


async def test_a_permanent_one_has_no_ttl(cloud: Cloud) -> None:
    """Updating the ttl of a permanent workspace is a conflict; a ping of it changes nothing."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    refused = await cloud.call("PUT", f"{path}/lifecycle/ttl", {"ttl": "1h"}, status=409)
    assert "temporary" in refused["message"]
    pinged = await cloud.call("POST", f"{path}/ping")
    assert (pinged["ttl"], pinged["ttl_expires_at"]) == (None, None)


@pytest.mark.parametrize(
    ("action", "status"), [("stop", "stopped"), ("pause", "paused"), ("remove", None)]
)
async def test_the_end_of_a_lease(cloud: Cloud, action: str, status: str | None) -> None:
    """At its end a lease stops, pauses or removes; renewals that come later get a 409."""
    workspace = await temporary(cloud, ttl_action=action)
    await pipeline(cloud).look()
    assert (await cloud.get(workspace))["status"] == "running"
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    if status is None:
        await cloud.gone(workspace)
        assert not cloud.engine.machines
        archived = await cloud.call("GET", "/workspace/archived")
        assert [found["id"] for found in archived["workspaces"]] == [workspace]
        assert archived["workspaces"][0]["archived_reason"] == "ttl"
        return
    await cloud.until(workspace, lambda each: each["status"] == status)
    refused = await cloud.call("POST", f"/workspace/{workspace}/ping", status=409)
    assert refused["details"]["state"] == status
    assert "has ended" in refused["message"]
    path = f"/workspace/{workspace}/lifecycle/ttl"
    await cloud.call("PUT", path, {"ttl": "2h"}, status=409)


async def test_what_runs_again_has_a_new_lease(cloud: Cloud) -> None:
    """Start and resume begin a whole lease, so that what they began does not end at once."""
    workspace = await temporary(cloud, ttl_action="pause")
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    await cloud.until(workspace, lambda each: each["status"] == "paused")
    resumed = await cloud.call("POST", f"/workspace/{workspace}/resume")
    assert await pipeline(cloud).look() == 0
    assert ends_in(await cloud.lifecycle(workspace)) > 7000
    assert resumed["workspace"] == await cloud.get(workspace)
    await cloud.call("POST", f"/workspace/{workspace}/stop")
    started = await cloud.call("POST", f"/workspace/{workspace}/start")
    assert started["workspace"] == await cloud.get(workspace)
    assert started["status"] == "running"
    assert ends_in(await cloud.lifecycle(workspace)) > 7000


async def test_renewal(cloud: Cloud) -> None:
    """A ping renews for the ttl or for the seconds given; PUT changes length and action alone."""
    workspace = await temporary(cloud)
    path = f"/workspace/{workspace}"
    asked = now()
    lease = await cloud.call("POST", f"{path}/ping", {"ttl_seconds": 10})
    assert ends_in(lease) <= 11
    assert ends_in(lease, asked) > 9
    shown = await cloud.lifecycle(workspace)
    assert shown["ttl"] == "1h"
    changed = await cloud.call("PUT", f"{path}/lifecycle/ttl", {"ttl_action": "remove"})
    assert changed["ttl_action"] == "remove"
    assert changed["ttl_expires_at"] == shown["ttl_expires_at"]
    assert 3595 < ends_in(await cloud.call("POST", f"{path}/ping")) <= 3601
    changed = await cloud.call("PUT", f"{path}/lifecycle/ttl", {"ttl": "2h"})
    assert (changed["ttl"], changed["ttl_action"]) == ("2h", "remove")
    assert 7195 < ends_in(changed) <= 7201


async def test_a_renewal_that_wins_leaves_the_expiry_nothing(cloud: Cloud) -> None:
    """An expiry that was found and then lost the race to a renewal does nothing."""
    workspace = await temporary(cloud, ttl_action="remove")
    leases = pipeline(cloud)
    found = cloud.world.ahead
    cloud.world.ahead = HOUR * 2  # it is over, and somebody renews before it is worked
    async with cloud.services.database.write():  # nobody else may act meanwhile
        cloud.world.ahead = found
    await cloud.call("POST", f"/workspace/{workspace}/ping", {"ttl_seconds": 7200})
    cloud.world.ahead = HOUR + timedelta(minutes=1)
    assert not await leases.end(workspace)
    assert (await cloud.get(workspace))["status"] == "running"


async def test_of_renewal_and_expiry_exactly_one_wins(cloud: Cloud) -> None:
    """However they meet: a renewal that succeeded is a running workspace, a refused one is not."""
    ids = [await temporary(cloud) for _ in range(6)]
    other = pipeline(cloud)
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    pings = [
        cloud.http.post(f"/workspace/{workspace}/ping", json={"ttl_seconds": 86400})
        for workspace in ids
    ]
    answers, _ = await asyncio.gather(
        asyncio.gather(*pings), asyncio.gather(*(other.end(workspace) for workspace in ids))
    )
    for workspace, answer in zip(ids, answers, strict=True):
        wanted = "running" if answer.status_code == 200 else "stopped"
        assert answer.status_code in {200, 409}
        await cloud.until(workspace, lambda each, wanted=wanted: each["status"] == wanted)  # type: ignore[misc]


async def test_a_lease_that_ended_while_nobody_was_there(world: World) -> None:
    """An api that was down when a lease ended acts when it is back."""
    async with world.cloud() as cloud:
        workspace = await temporary(cloud)
    world.ahead = HOUR * 3
    async with world.cloud() as cloud:
        await cloud.until(workspace, lambda each: each["status"] == "stopped")


async def test_an_expiry_waits_for_what_is_going_on(cloud: Cloud) -> None:
    """A lease that ends in the middle of a restart finds a new one when that is done."""
    workspace = await temporary(cloud, ttl_action="remove")
    cloud.engine.hold["stop"] = asyncio.Event()
    restart = asyncio.create_task(cloud.call("POST", f"/workspace/{workspace}/restart"))
    await eventually(lambda: ("stop", workspace) in cloud.engine.calls)
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    assert not await pipeline(cloud).end(workspace)
    cloud.engine.release("stop")
    assert (await restart)["status"] == "running"
    assert ends_in(await cloud.lifecycle(workspace)) > 7000


async def test_a_stopped_one_is_still_removed(cloud: Cloud) -> None:
    """A lease goes on while the workspace is stopped: its removal comes all the same."""
    workspace = await temporary(cloud, ttl_action="remove")
    await cloud.call("POST", f"/workspace/{workspace}/stop")
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    await cloud.gone(workspace)


async def end(cloud: Cloud, workspace: str, way: str) -> None:
    """Let its machine end in this way."""
    engine, path = cloud.engine, f"/workspace/{workspace}"
    match way:
        case "exit":
            engine.end(workspace, MachineExit(at=now(), code=0))
        case "lost":
            engine.machines.clear()
        case "stop":
            await cloud.call("POST", f"{path}/stop")
        case "lease":
            cloud.world.ahead = HOUR + timedelta(seconds=1)
        case "restart" | "reinstall":
            engine.fail["start"] = 1
            await cloud.call("POST", f"{path}/{way}", status=503)
        case "resize":
            engine.can_resize = False
            engine.fail["start"] = 1
            await cloud.call("PUT", f"{path}/resources", {"cpus": 2, "apply": True}, status=503)


@pytest.mark.parametrize("way", ["exit", "lost", "stop", "lease", "restart", "reinstall", "resize"])
async def test_removed_on_any_exit(cloud: Cloud, way: str) -> None:
    """`remove_on_exit`: by itself, lost, stopped by its owner or its lease, or by what failed."""
    workspace = await temporary(cloud, remove_on_exit=True, ttl_action="stop")
    await end(cloud, workspace, way)
    await cloud.gone(workspace)
    assert not cloud.engine.machines
    archived = (await cloud.call("GET", "/workspace/archived"))["workspaces"]
    assert [(found["id"], found["archived_reason"]) for found in archived] == [(workspace, "exit")]


async def test_a_restore_that_failed_removes_nothing(cloud: Cloud) -> None:
    """What was to come back is still there, and the lease goes on: it is tried again."""
    engine = cloud.engine
    engine.can_snapshot = True
    workspace = await temporary(cloud, remove_on_exit=True)
    path = f"/workspace/{workspace}"
    await cloud.call("POST", f"{path}/snapshot")
    engine.hold["restore"] = asyncio.Event()
    engine.fail["restore"] = 1
    call = asyncio.create_task(cloud.call("POST", f"{path}/restore", status=503))
    await eventually(lambda: ("restore", workspace) in engine.calls)
    engine.end(workspace, None)
    engine.release("restore")
    await call
    assert (await cloud.get(workspace))["status"] == "stopped"
    assert (await cloud.lifecycle(workspace))["ttl_expires_at"]
    assert (await cloud.call("POST", f"{path}/restore"))["status"] == "running"


async def test_removed_on_an_exit_that_was_not_seen(cloud: Cloud) -> None:
    """The engine goes away amid a restart, which is given up: what it had stopped is removed."""
    workspace = await temporary(cloud, remove_on_exit=True)
    cloud.engine.hold["stop"] = asyncio.Event()
    cloud.engine.lose["stop"] = 2
    call = asyncio.create_task(cloud.call("POST", f"/workspace/{workspace}/restart", status=503))
    await eventually(lambda: ("stop", workspace) in cloud.engine.calls)
    async with cloud.services.database.write() as session:
        mine = select(Operation).where(Operation.workspace_id == workspace)
        for operation in await session.scalars(mine):
            operation.created_at -= HOUR  # there is no patience left
    cloud.engine.release("stop")
    await call
    await cloud.gone(workspace)


async def test_not_removed_without_an_exit(cloud: Cloud) -> None:
    """A stopped workspace is not removed by being made temporary, a failed start, nor restart."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/stop")
    body = {"ttl": "1h", "remove_on_exit": True}
    await cloud.call("POST", f"{path}/lifecycle/temporary", body)
    for verb in ("start", "restart"):
        cloud.engine.fail["start"] = 1
        await cloud.call("POST", f"{path}/{verb}", status=503)
        assert (await cloud.get(found["id"]))["status"] == "stopped"
    assert (await cloud.call("POST", f"{path}/start"))["status"] == "running"
    assert (await cloud.call("POST", f"{path}/restart"))["status"] == "running"


@pytest.mark.parametrize("way", ["temporary", "permanent"])
async def test_a_waiting_restart_is_called_off(cloud: Cloud, way: str) -> None:
    """Its policy is `no` from now on: it rests, long before its back-off is over."""
    found = await cloud.create(config={"restart_policy": "always"})
    path = f"/workspace/{found['id']}/lifecycle/{way}"
    async with cloud.services.database.write() as session:  # the next one waits for a minute
        restarts = {"count": 3, "streak": 6, "history": []}
        await Workspaces(session).update(found["id"], {"restarts": restarts})
    starts = cloud.engine.calls.count(("start", found["id"]))
    cloud.engine.end(found["id"], MachineExit(at=now(), code=1))
    await cloud.until(found["id"], lambda each: each["status"] == "starting")
    await cloud.call(
        "POST", path, {"ttl": "1h"} if way == "temporary" else {"restart_policy": "no"}
    )
    await cloud.until(found["id"], lambda each: each["status"] == "stopped")
    info = (await cloud.lifecycle(found["id"]))["restart_info"]
    assert (info["count"], info["history"][0]["restarted"]) == (3, False)
    assert cloud.engine.calls.count(("start", found["id"])) == starts
    assert (await cloud.call("POST", f"/workspace/{found['id']}/start"))["status"] == "running"


async def test_a_pause_that_fails_at_the_end_becomes_a_stop(cloud: Cloud) -> None:
    """A lease always ends: when the machine cannot be frozen it is stopped."""
    workspace = await temporary(cloud, ttl_action="pause")
    cloud.engine.fail["pause"] = 1
    cloud.world.ahead = HOUR + timedelta(seconds=1)
    await cloud.until(workspace, lambda each: each["status"] == "stopped")
    assert cloud.engine.machines[workspace].status.state is MachineState.STOPPED


async def test_pause_is_refused_where_it_cannot_be(cloud: Cloud) -> None:
    """On an engine without pause neither creation nor conversion takes `pause`."""
    cloud.engine.can_pause = False
    body = {"config": {"ttl": "1h", "ttl_action": "pause"}}
    refused = await cloud.call("POST", "/workspace", body, status=422)
    assert refused["details"] == {"field": "config.ttl_action", "reason": "not_supported"}
