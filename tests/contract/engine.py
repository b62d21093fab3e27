"""What every Engine must do; a subclass gives the fixtures `engine` and `spec`."""

from __future__ import annotations

import asyncio

import pytest

from bastide.domain.machine import MachineSpec, MachineState, SnapshotAfter
from bastide.domain.network import NetworkPolicy
from bastide.engine.contract import Engine, EngineError, UnknownMachine, Unsupported

DEADLINE = 60.0


class EngineContract:
    """Inherit, and define the fixtures `engine` (empty) and `spec` (bootable, with no command)."""

    async def test_says_what_it_can_do(self, engine: Engine, spec: MachineSpec) -> None:
        """Capabilities name the tier and its reason, and the image of the spec is there."""
        found = await engine.capabilities()
        assert found.tier
        assert found.tier_reason
        assert spec.image in {image.id for image in await engine.images()}

    async def test_an_image_is_had(self, engine: Engine, spec: MachineSpec) -> None:
        """Having one that is there is harmless, and tells what it is."""
        told: list[str] = []
        found = await engine.pull(spec.image, None, told.append)
        assert found.ready

    async def test_create_reserves_without_booting(self, engine: Engine, spec: MachineSpec) -> None:
        """Create gives an address and boots nothing; a repeat gives the same address."""
        first = await engine.create(spec)
        assert first.state is MachineState.STOPPED
        assert first.address
        assert (await engine.create(spec)).address == first.address
        assert [status.id for status in await engine.poll()] == [spec.id]

    async def test_start_answers_when_ready(self, engine: Engine, spec: MachineSpec) -> None:
        """A started machine runs, with address, boot, control port and timings."""
        reserved = await engine.create(spec)
        status = await engine.start(spec)
        assert status.state is MachineState.RUNNING
        assert status.address == reserved.address
        assert status.boot_id
        assert status.started_at
        assert status.control is not None
        assert status.control.token
        assert status.timings
        assert (await engine.status(spec.id)).boot_id == status.boot_id

    async def test_start_leaves_a_running_one_alone(
        self, engine: Engine, spec: MachineSpec
    ) -> None:
        """Starting twice is one boot."""
        await engine.create(spec)
        first = await engine.start(spec)
        assert (await engine.start(spec)).boot_id == first.boot_id

    async def test_stop_keeps_address_and_may_be_repeated(
        self, engine: Engine, spec: MachineSpec
    ) -> None:
        """A stopped machine starts again at its address with another boot."""
        await engine.create(spec)
        first = await engine.start(spec)
        for _ in range(2):
            stopped = await engine.stop(spec.id, 5)
            assert stopped.state is MachineState.STOPPED
        assert stopped.exit is not None
        assert stopped.exit.requested
        again = await engine.start(spec)
        assert again.address == first.address
        assert again.boot_id != first.boot_id

    async def test_kill_ends_it_at_once(self, engine: Engine, spec: MachineSpec) -> None:
        """A killed machine is stopped, its disk kept."""
        await engine.create(spec)
        await engine.start(spec)
        assert (await engine.kill(spec.id)).state is MachineState.STOPPED
        assert (await engine.start(spec)).state is MachineState.RUNNING

    async def test_pause_and_resume_keep_the_boot(self, engine: Engine, spec: MachineSpec) -> None:
        """A frozen machine is paused until it is resumed, in the same boot; both are repeatable."""
        if not (await engine.capabilities()).pause:
            pytest.skip("this engine cannot pause, and says so")
        await engine.create(spec)
        first = await engine.start(spec)
        for _ in range(2):
            assert (await engine.pause(spec.id)).state is MachineState.PAUSED
        assert [status.state for status in await engine.poll()] == [MachineState.PAUSED]
        for _ in range(2):
            resumed = await engine.resume(spec.id)
            assert resumed.state is MachineState.RUNNING
            assert resumed.boot_id == first.boot_id
        await engine.pause(spec.id)
        assert (await engine.stop(spec.id, 5)).state is MachineState.STOPPED
        for call in (engine.pause(spec.id), engine.resume(spec.id)):
            with pytest.raises(EngineError):
                await call

    async def test_snapshots_replace_each_other_and_come_back(
        self, engine: Engine, spec: MachineSpec
    ) -> None:
        """There is one, the last; it outlives its machine, and a restore is another boot."""
        able = await engine.capabilities()
        if not able.snapshot:
            assert able.snapshot_unavailable_reason
            pytest.skip("this engine takes no snapshots, and says why")
        await engine.create(spec)
        first = await engine.start(spec)
        assert await engine.last_snapshot(spec.id) is None
        with pytest.raises(EngineError, match="snapshot"):
            await engine.restore(spec)
        assert (await engine.status(spec.id)).state is MachineState.RUNNING
        assert (await engine.snapshot(spec.id, None)).state is MachineState.RUNNING
        paused = await engine.snapshot(spec.id, SnapshotAfter.PAUSED)
        assert paused.state is MachineState.PAUSED
        stopped = await engine.snapshot(spec.id, SnapshotAfter.STOP)
        assert stopped.state is MachineState.STOPPED
        with pytest.raises(EngineError):
            await engine.snapshot(spec.id, None)
        await engine.delete(spec.id, keep_snapshot=True)
        last = await engine.last_snapshot(spec.id)
        assert last is not None
        assert last == stopped.snapshot
        restored = await engine.restore(spec)
        assert restored.state is MachineState.RUNNING
        assert restored.address == last.address
        assert restored.boot_id not in {None, first.boot_id}
        await engine.delete(spec.id)
        assert await engine.last_snapshot(spec.id) is None

    async def test_sizes_are_changed_hot(self, engine: Engine, spec: MachineSpec) -> None:
        """Other limits hold in the same boot; the disk keeps its size until the next one."""
        await engine.create(spec)
        first = await engine.start(spec)
        sizes = spec.resources.model_copy(
            update={"cpus": 0.5, "memory_mb": 256, "disk_mb": spec.resources.disk_mb + 64}
        )
        try:
            resized = await engine.resize(spec.id, sizes)
        except Unsupported:
            return
        assert resized.boot_id == first.boot_id
        assert resized.resources is not None
        assert (resized.resources.cpus, resized.resources.memory_mb) == (0.5, 256)
        assert resized.resources.disk_mb == spec.resources.disk_mb
        assert (await engine.stats(spec.id)).memory_limit_bytes == 256 * 2**20

    async def test_delete_works_in_every_state(self, engine: Engine, spec: MachineSpec) -> None:
        """Deleting what is unknown, reserved, running or deleted leaves nothing."""
        await engine.delete(spec.id)
        await engine.create(spec)
        await engine.delete(spec.id)
        await engine.create(spec)
        await engine.start(spec)
        for _ in range(2):
            await engine.delete(spec.id)
            assert await engine.poll() == []

    async def test_unknown_machines_are_named(self, engine: Engine, spec: MachineSpec) -> None:
        """Whatever names a machine that does not exist raises UnknownMachine."""
        for call in (
            engine.status(spec.id),
            engine.stop(spec.id, 1),
            engine.kill(spec.id),
            engine.stats(spec.id),
            engine.console(spec.id, 100),
            engine.apply_network(spec.id, NetworkPolicy()),
        ):
            with pytest.raises(UnknownMachine):
                await call

    async def test_network_is_applied_hot(self, engine: Engine, spec: MachineSpec) -> None:
        """A policy is taken by a running machine, which goes on running."""
        await engine.create(spec)
        first = await engine.start(spec)
        policy = NetworkPolicy(public_access=True, ingress_ports=(9990,), allow_internet=False)
        status = await engine.apply_network(spec.id, policy)
        assert status.state is MachineState.RUNNING
        assert status.boot_id == first.boot_id

    async def test_stats_and_console_are_bounded(self, engine: Engine, spec: MachineSpec) -> None:
        """Use is counted against the limits; the console is at most what was asked for."""
        await engine.create(spec)
        await engine.start(spec)
        stats = await engine.stats(spec.id)
        assert 0 < stats.memory_limit_bytes <= spec.resources.memory_mb * 2**20
        assert len((await engine.console(spec.id, 16)).encode()) <= 16

    async def test_events_tell_of_the_end(self, engine: Engine, spec: MachineSpec) -> None:
        """Whoever listens hears that a machine stopped."""
        await engine.create(spec)
        await engine.start(spec)
        heard = asyncio.create_task(_hear_stop(engine, spec.id))
        async with asyncio.timeout(DEADLINE):
            while not heard.done():
                await engine.start(spec)
                await engine.stop(spec.id, 5)
                await asyncio.wait([heard], timeout=0.2)
            assert await heard


async def _hear_stop(engine: Engine, machine: str) -> bool:
    async for event in engine.events():
        if event.id == machine and event.state is MachineState.STOPPED:
            return True
    return False
