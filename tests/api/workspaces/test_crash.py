"""Killed at any line: the next pass finishes or undoes, and nobody writes what is stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.machine import MachineState, MachineStatus
from bastide.domain.operation import OperationKind
from bastide.pipelines.job import Done, Job
from bastide.pipelines.owner import Owner, free_locks
from bastide.pipelines.provisioning import Provisioning
from bastide.pipelines.runner import Runner
from bastide.pipelines.sweep import Sweep
from bastide.pipelines.tools import Tools
from bastide.services.archive_files import ArchiveFiles
from bastide.services.backups import Backups
from bastide.services.views import view_of
from bastide.store.operations import Operations
from bastide.store.tables import Operation
from bastide.store.workspaces import Workspaces


@asynccontextmanager
async def killed(world: World, step: str) -> AsyncIterator[str]:
    """A control plane that dies while a creation is in `step`; gives the workspace's id."""
    world.engine.hold[step] = asyncio.Event()
    async with world.cloud() as cloud:
        answer = await cloud.call("POST", "/workspace", status=201)
        workspace_id = answer["workspace"]["id"]
        await eventually(lambda: (step, workspace_id) in world.engine.calls)
    world.engine.release(step)
    yield workspace_id


@pytest.mark.parametrize("step", ["create", "start"])
async def test_a_creation_is_taken_up_again(world: World, step: str) -> None:
    """A control plane that died in the middle of a creation finishes it when it is back."""
    async with killed(world, step) as workspace_id, world.cloud() as cloud:
        found = await cloud.until(workspace_id, lambda each: each["ready"])
        assert found["provisioning"]["state"] == "ready"
        assert list(world.engine.machines) == [workspace_id]


async def test_a_restart_is_not_done_twice(world: World) -> None:
    """A restart that had booted the machine before the crash is only written down."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        world.engine.lose["start"] = 1
        world.engine.hold["status"] = asyncio.Event()
        asking = asyncio.create_task(cloud.http.post(f"/workspace/{found['id']}/restart"))
        await eventually(lambda: ("status", found["id"]) in world.engine.calls)
        boot = world.engine.machines[found["id"]].status.boot_id
        world.engine.release("status")
        assert (await asking).status_code == 200
        assert world.engine.machines[found["id"]].status.boot_id == boot
        assert [step for step, _ in world.engine.calls].count("stop") == 1


async def test_a_deletion_is_taken_up_again(world: World) -> None:
    """A control plane that died in the middle of a deletion finishes it when it is back."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        world.engine.hold["delete"] = asyncio.Event()
        await cloud.call("DELETE", f"/workspace/{found['id']}")
        await eventually(lambda: ("delete", found["id"]) in world.engine.calls)
    world.engine.release("delete")
    async with world.cloud() as cloud:
        await cloud.gone(found["id"])
        assert not world.engine.machines


class Deaf(Provisioning):
    """A pass whose heart stops, and that is overtaken before it writes."""

    async def work(self, job: Job) -> Done:
        """Let another pass take the row, then come with a result of its own."""
        async with self.tools.database.write() as session:
            await Operations(session).extend(job.operation.id, job.lock, -1)
        taken = await Provisioning(self.tools, Owner(), self._backups).take()
        assert taken is not None
        assert taken[0].lock_token != job.lock
        return Done("Stale", {"name": "stale"})


async def test_a_stale_result_is_dropped(world: World) -> None:
    """Who lost the lock writes nothing, neither to the operation nor to the workspace."""
    world.engine.hold["create"] = asyncio.Event()
    async with world.cloud() as cloud:
        answer = await cloud.call("POST", "/workspace", {"name": "fresh"}, status=201)
        workspace_id = answer["workspace"]["id"]
        await eventually(lambda: ("create", workspace_id) in world.engine.calls)
        tools = _tools(cloud)
        deaf = Deaf(tools, Owner(), _backups(cloud)[0])
        taken = None
        while taken is None:  # the passes of this cloud look for work as well, and may be first
            async with tools.database.write() as session:
                operation = await Operations(session).unfinished(workspace_id)
                assert operation is not None
                await Operations(session).release(operation.id, operation.lock_token or "", 0)
            taken = await deaf.take()
        await deaf.handle(*taken)
        found = await cloud.get(workspace_id)
        assert found["name"] == "fresh"
        assert found["provisioning"]["state"] == "running"
    world.engine.release("create")


async def test_an_expired_lock_is_taken_over(world: World) -> None:
    """A pass that went silent loses its row to the next one, which finishes it."""
    async with killed(world, "create") as workspace_id, world.cloud() as cloud:
        await cloud.until(workspace_id, lambda each: each["ready"])
        tools = _tools(cloud)
        async with tools.database.write() as session:
            operation = await Operations(session).insert(
                Operation(
                    workspace_id=workspace_id,
                    kind=OperationKind.STOP,
                    lock_token="silent",
                    lock_owner="elsewhere/1/x",
                    lock_expires_at=now() - timedelta(seconds=1),
                )
            )
        ended = (await tools.queue.finished(operation.id, 30)).operation
        assert ended.state.value == "done"
        assert ended.attempts == 1


async def test_locks_of_dead_processes_are_freed_at_once(cloud: Cloud) -> None:
    """A start does not wait for the locks of this host's dead processes, and leaves the others."""
    found = await cloud.create()
    database, me = cloud.services.database, Owner()
    for name, freed in ((f"{me.host}/{me.pid}/old", 1), ("elsewhere/1/x", 0), (me.name, 0)):
        async with database.write() as session:
            operation = await Operations(session).insert(
                Operation(
                    workspace_id=found["id"],
                    kind=OperationKind.STOP,
                    lock_token="held",
                    lock_owner=name,
                    lock_expires_at=now() + timedelta(hours=1),
                )
            )
        assert await free_locks(database, me) == freed
        async with database.write() as session:
            await Operations(session).supersede(operation.workspace_id, "done with")


async def test_a_change_during_a_boot_is_caught_up(cloud: Cloud) -> None:
    """What was opened while the machine was starting is in force once it is ready."""
    cloud.engine.hold["start"] = asyncio.Event()
    answer = await cloud.call("POST", "/workspace", status=201)
    workspace_id = answer["workspace"]["id"]
    await eventually(lambda: ("start", workspace_id) in cloud.engine.calls)
    await cloud.call("POST", f"/workspace/{workspace_id}/runtime-api-access/enable")
    cloud.engine.release("start")
    await cloud.until(workspace_id, lambda each: each["ready"])
    await eventually(lambda: workspace_id in cloud.agent.runtime)
    assert cloud.engine.machines[workspace_id].policy.public_access
    assert cloud.edge.entries[workspace_id].state == "open"


async def test_the_sweep_never_touches_what_it_does_not_know(world: World) -> None:
    """With another database in place, the machines of the first one are left alone."""
    async with world.cloud() as cloud:
        found = await cloud.create()
    (world.settings.state_dir / "db" / "bastide.sqlite3").unlink()
    async with world.cloud() as cloud:
        assert (await Sweep(_tools(cloud)).sweep()).orphans == 0
        assert list(world.engine.machines) == [found["id"]]


async def test_the_sweep_removes_what_was_deleted(world: World) -> None:
    """The machine of a deleted workspace goes; one that runs although it should not is stopped."""
    async with world.cloud() as cloud:
        found, kept = await cloud.create(), await cloud.create()
        await cloud.call("POST", f"/workspace/{kept['id']}/stop")
        async with cloud.services.database.write() as session:
            await Workspaces(session).mark_deleted(found["id"])
    await world.engine.start(world.engine.machines[kept["id"]].spec)
    async with world.cloud() as cloud:
        await eventually(lambda: list(world.engine.machines) == [kept["id"]])
        machine = world.engine.machines[kept["id"]]
        await eventually(lambda: machine.status.state is MachineState.STOPPED)


async def test_the_sweep_takes_no_old_poll_for_news(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was stopped after it was polled, and before the row is read, is left alone."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        poll = world.engine.poll

        async def before_it_stopped() -> list[MachineStatus]:
            polled = await poll()
            await cloud.call("POST", f"/workspace/{found['id']}/stop")
            return polled

        monkeypatch.setattr(world.engine, "poll", before_it_stopped)
        assert (await Sweep(_tools(cloud)).sweep()).begun == 0


async def test_the_edge_follows_the_rows(world: World) -> None:
    """Whatever the edge had is replaced by what the rows say at the start."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/enable")
        wanted = dict(world.edge.entries)
    await world.edge.publish("ws_deadbeef", None, 1, "down", None)
    world.edge.entries.pop(found["id"])
    async with world.cloud():
        await eventually(lambda: world.edge.entries == wanted)


async def test_a_mark_left_by_a_crash_is_worked_off(world: World) -> None:
    """A change that was committed and not put in force is put in force by the sweep."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        async with cloud.services.database.write() as session:
            row = await Workspaces(session).get(found["id"])
            assert row is not None
            await Workspaces(session).update(
                row.id, {"network": {**row.network, "allow_internet": False, "pending": True}}
            )
    async with world.cloud() as cloud:
        await eventually(lambda: not world.engine.machines[found["id"]].policy.allow_internet)

        async def settled() -> bool:
            async with cloud.services.database.read() as session:
                row = await Workspaces(session).get(found["id"])
                assert row is not None
                return "pending" not in row.network

        async with asyncio.timeout(30):
            while not await settled():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_two_control_planes_share_the_work(world: World) -> None:
    """Two runners on one database work each operation once."""
    async with world.cloud() as cloud:
        runner = asyncio.create_task(Runner(_tools(cloud), *_backups(cloud)).run())
        found = await asyncio.gather(*(cloud.create() for _ in range(12)))
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
        async with cloud.services.database.read() as session:
            for each in found:
                row = await Workspaces(session).get(each["id"])
                assert row is not None
                view = await view_of(session, row)
                assert view.provision is not None
                assert view.provision.attempts == 1


def _backups(cloud: Cloud) -> tuple[Backups, ArchiveFiles]:
    depot = cloud.world.depot
    return Backups(cloud.agent, depot), ArchiveFiles(cloud.services.database, depot)


def _tools(cloud: Cloud) -> Tools:
    """Tools like those of the running control plane, sharing its bell."""
    return Tools(
        database=cloud.services.database,
        queue=cloud.services.power._queue,
        engine=cloud.engine,
        reach=cloud.services.workspaces._reach,
        gateway=cloud.services.runtime_access._gateway,
    )
