"""Whatever fails inside, an operation ends, says so, and leaves nothing half wanted."""

from __future__ import annotations

import asyncio

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.lifecycle import DesiredState
from bastide.edge.maps import GatewayEntryError, GatewayState
from bastide.engine.contract import EngineError
from bastide.pipelines import pipeline
from bastide.pipelines.job import Done, Job
from bastide.pipelines.power import Power
from bastide.services import queue
from bastide.services.views import view_of
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces


async def row_of(cloud: Cloud, workspace_id: str) -> Workspace:
    """The row."""
    async with cloud.services.database.read() as session:
        row = await Workspaces(session).get(workspace_id)
    assert row is not None
    return row


@pytest.mark.parametrize("hopeless", [False, True])
async def test_what_crashes_every_pass_is_settled(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, *, hopeless: bool
) -> None:
    """It is tried again soon, given up in the end, and the workspace is wanted as it is.

    Whoever waits is told when the edge knows, however often they look at the row.
    """
    found = await cloud.create()
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/enable")
    await cloud.call("POST", f"/workspace/{found['id']}/stop")
    monkeypatch.setattr(pipeline, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(queue, "LOOK_AGAIN", 0.001)
    passes = []

    async def work(self: Power, job: Job) -> Done:
        passes.append(job.operation.attempts)
        raise RuntimeError("a defect")

    async def give_up(self: Power, job: Job, error: EngineError) -> Done:
        raise RuntimeError("another")

    monkeypatch.setattr(Power, "work", work)
    if hopeless:
        monkeypatch.setattr(Power, "give_up", give_up)
    del cloud.edge.entries[found["id"]]
    answer = await cloud.call("POST", f"/workspace/{found['id']}/start", status=503)
    assert "failed inside the server" in answer["message"]
    assert passes == [1, 2, 3, 4, 5]
    assert (await row_of(cloud, found["id"])).desired_state is DesiredState.STOPPED
    assert cloud.edge.entries[found["id"]].state == "down"


async def test_a_strange_address_stops_nobody(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the edge refuses is withdrawn there; the call and the other workspaces go on."""
    found, publish = await cloud.create(), cloud.edge.publish

    async def refuse(
        workspace_id: str,
        address: str | None,
        generation: int,
        state: GatewayState,
        raw_token: str | None,
    ) -> None:
        if workspace_id == found["id"]:
            raise GatewayEntryError("no address of a workspace")
        await publish(workspace_id, address, generation, state, raw_token)

    monkeypatch.setattr(cloud.edge, "publish", refuse)
    await cloud.call("POST", f"/workspace/{found['id']}/restart")
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/enable")
    assert found["id"] not in cloud.edge.entries
    assert (await cloud.create())["id"] in cloud.edge.entries


async def test_an_end_is_told_whatever_the_edge_does(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication that fails in an unforeseen way keeps nobody waiting."""
    found = await cloud.create()

    async def fail(row: Workspace, *, gone: bool = False) -> None:
        raise RuntimeError("a defect")

    # Nobody may come upon the end by looking for it.
    monkeypatch.setattr(queue, "LOOK_AGAIN", 3600.0)
    monkeypatch.setattr(cloud.services.runtime_access._gateway, "publish", fail)
    async with asyncio.timeout(20):
        await cloud.call("POST", f"/workspace/{found['id']}/stop")


async def test_what_a_failed_creation_left_goes_by_an_operation(world: World) -> None:
    """A machine that was left is removed; the record stays a failed creation, not an archive."""
    world.engine.fail.update(start=1, delete=1)
    async with world.cloud() as cloud:
        answer = await cloud.call("POST", "/workspace", status=201)
        workspace_id = answer["workspace"]["id"]
        await cloud.until(workspace_id, lambda each: each["status"] == "error")
    assert list(world.engine.machines) == [workspace_id]
    async with world.cloud() as cloud:
        await eventually(lambda: not world.engine.machines)
        await cloud.until(workspace_id, lambda each: each["status"] == "error")
        row = await row_of(cloud, workspace_id)
        async with cloud.services.database.read() as session:
            view = await view_of(session, row)
        assert view.newest is not None
        assert (view.newest.kind.value, row.archived_at) == ("destroy", None)
        await cloud.call("POST", f"/workspace/{workspace_id}/provisioning/retry")
        await cloud.until(workspace_id, lambda each: each["ready"])
