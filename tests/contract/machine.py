"""The suite every tier's Machine inherits (bastide.node.machines.machine)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bastide.domain.machine import MachineSpec
from bastide.node.errors import BootFailed, Conflict, Unsupported
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.machine import Machine
from bastide.node.snapshots import Draft

Make = Callable[[str], Awaitable[Machine]]


class MachineContract(ABC):
    """Subclasses say how to make a machine whose process 1 behaves as named.

    `make(behaviour)` gives a machine with a reserved address and an empty disk, not booted.
    Behaviours: `ready` (prints hello and READY, ends with 0 on SIGTERM), `stubborn` (READY,
    ignores SIGTERM), `failing` (prints `cannot go on`, ends with 3), `silent` (never ready),
    `flooding` (prints without end).
    """

    spec: MachineSpec
    digest: str
    ids = IdRange(1_500_000_000)

    @pytest.fixture
    @abstractmethod
    def make(self) -> Make:
        """How to make one."""

    @abstractmethod
    async def again(self, machine: Machine) -> Machine:
        """The same machine as a node sees it that has just started."""

    async def boot(self, machine: Machine) -> None:
        await machine.boot(self.spec, self.digest, self.ids)

    async def test_boots_and_times_each_stage(self, make: Make) -> None:
        """A booted machine has an identity of its own, a token, and the time of every stage."""
        machine = await make("ready")
        first = await machine.boot(self.spec, self.digest, self.ids)
        await machine.kill()
        second = await machine.boot(self.spec, self.digest, self.ids)
        assert first.boot_id != second.boot_id
        assert first.token != second.token
        assert len(first.token) == 64
        assert {"disk", "rootfs", "create", "network", "start", "agent", "total"} == set(
            first.timings
        )
        assert second.ready
        await machine.clean()

    async def test_a_failing_boot_shows_the_last_words_and_leaves_nothing(self, make: Make) -> None:
        """A process 1 that ends early fails the boot with what it printed."""
        machine = await make("failing")
        with pytest.raises(BootFailed, match="cannot go on") as failed:
            await self.boot(machine)
        assert failed.value.details["output"] == "cannot go on"
        assert machine.process is None

    async def test_a_silent_boot_ends_at_the_time_limit(self, make: Make) -> None:
        """A machine that never says READY is given up and removed."""
        machine = await make("silent")
        with pytest.raises(BootFailed, match="not ready within"):
            await self.boot(machine)
        assert machine.process is None

    async def test_a_flood_of_output_is_bounded(self, make: Make) -> None:
        """A machine that prints without end fails at the bound and takes no more memory."""
        machine = await make("flooding")
        with pytest.raises(BootFailed, match="64 KiB"):
            await self.boot(machine)
        assert len(machine.console(2**20)) <= 64 * 1024

    async def test_stop_lets_process_one_end_itself(self, make: Make) -> None:
        """SIGTERM reaches process 1, whose own exit code is reported."""
        machine = await make("ready")
        await self.boot(machine)
        assert machine.process is not None
        process = machine.process
        await machine.stop(10)
        assert (await process.wait(5)).code == 0
        await machine.clean()

    async def test_stop_is_firm_after_the_grace(self, make: Make) -> None:
        """A process 1 that ignores SIGTERM is killed."""
        machine = await make("stubborn")
        await self.boot(machine)
        assert machine.process is not None
        process = machine.process
        await machine.stop(0.2)
        assert (await process.wait(5)).signal == 9
        await machine.clean()

    async def test_a_paused_machine_can_be_killed(self, make: Make) -> None:
        """Freezing does not protect from the end."""
        machine = await make("ready")
        await self.boot(machine)
        await machine.pause()
        assert machine.process is not None
        process = machine.process
        await machine.kill()
        assert not process.alive
        await machine.clean()

    async def test_a_paused_machine_can_be_stopped_gently(self, make: Make) -> None:
        """Stop thaws first, so that process 1 can end itself."""
        machine = await make("ready")
        await self.boot(machine)
        await machine.pause()
        assert machine.process is not None
        process = machine.process
        await machine.stop(10)
        assert (await process.wait(5)).code == 0
        await machine.clean()

    async def test_sizes_change_while_it_runs(self, make: Make) -> None:
        """Processor and memory are taken over without a new boot; less than is in use is not."""
        machine = await make("ready")
        await self.boot(machine)
        larger = self.spec.resources.model_copy(update={"cpus": 0.5, "memory_mb": 256})
        try:
            await machine.resize(larger)
        except Unsupported:
            await machine.clean()
            return
        assert machine.process is not None
        assert machine.process.alive
        await machine.resize(self.spec.resources)
        await machine.clean()

    async def test_a_new_node_adopts_what_runs(self, make: Make) -> None:
        """After a restart of the node the machine is known again: same boot, same token, state."""
        machine = await make("ready")
        booted = await machine.boot(self.spec, self.digest, self.ids)
        await machine.pause()
        assert machine.process is not None
        machine.process.forget()
        other = await self.again(machine)
        assert await other.adopt() == booted
        assert other.paused
        assert other.console(6) == b"READY\n"
        await other.resume()
        await other.clean()

    async def test_a_new_node_cleans_what_ended_meanwhile(self, make: Make) -> None:
        """A machine that ended while no node ran is not adopted, and its traces go."""
        machine = await make("ready")
        await self.boot(machine)
        assert machine.process is not None
        process = machine.process
        process.send(9)  # type: ignore[arg-type]
        await process.wait(5)
        other = await self.again(machine)
        assert await other.adopt() is None
        assert other.boot_record is None

    async def test_stats_are_of_a_running_machine(self, make: Make) -> None:
        """Use is counted while it runs, and asked of a stopped one it is a conflict."""
        machine = await make("ready")
        await self.boot(machine)
        stats = await asyncio.to_thread(machine.stats, self.spec)
        assert stats.cpu_seconds > 0
        assert 0 < stats.memory_bytes < stats.memory_limit_bytes == 128 * 2**20
        assert 0 <= stats.disk_bytes < stats.disk_limit_bytes == 128 * 2**20
        assert 1 <= stats.pids <= 10
        await machine.clean()
        with pytest.raises(Conflict):
            machine.stats(self.spec)

    async def test_a_capture_is_whole_and_leaves_it_frozen(
        self, make: Make, tmp_path: Path
    ) -> None:
        """Memory and disk are written; the machine stands still and can go on, or says why not."""
        machine = await make("ready")
        await self.boot(machine)
        draft = Draft(tmp_path / "draft")
        for path in (draft.path, draft.memory, draft.work):
            path.mkdir()
        try:
            await machine.capture(draft, self.spec, ending=False)
        except Unsupported as error:
            await machine.clean()
            pytest.skip(f"this tier cannot, and says why: {error.message}")
        assert machine.paused
        assert any(path.stat().st_size for path in draft.memory.iterdir())
        assert draft.disk.stat().st_size == self.spec.resources.disk_mb * 2**20
        await machine.resume()
        assert machine.process is not None
        process = machine.process
        await machine.stop(10)
        assert (await process.wait(5)).code == 0
        await machine.clean()

    async def test_clean_may_be_repeated(self, make: Make) -> None:
        """Cleaning a machine that never ran, twice, is harmless."""
        machine = await make("ready")
        await machine.clean()
        await machine.clean()
