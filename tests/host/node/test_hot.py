"""What changes while a machine runs: frozen and thawed, other limits."""

from __future__ import annotations

import asyncio

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import shell

from bastide.domain.machine import MachineState
from bastide.node.errors import Conflict, MemoryInUse
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id
SIZES = spec().resources


@pytest.fixture
async def running(plain_node: Node) -> Node:
    """A node with one running machine."""
    await plain_node.fleet.create(spec())
    await plain_node.power.start(spec())
    return plain_node


async def still(node: Node) -> float:
    """The processor time of a frozen machine, once its last moments are charged to it."""
    before, now = -1.0, (await node.fleet.stats(MACHINE)).cpu_seconds
    while before != now:
        await asyncio.sleep(0.02)
        before, now = now, (await node.fleet.stats(MACHINE)).cpu_seconds
    return now


async def test_a_machine_that_forks_all_the_time_stands_still(running: Node) -> None:
    """Freezing settles against forking processes; frozen, no processor time passes."""
    forks = "for i in 1 2 3; do (while :; do /bin/true; done) & done; sleep 30"
    busy = asyncio.create_task(shell(running.host, MACHINE, forks, 60))
    try:
        while (await running.fleet.stats(MACHINE)).pids < 5:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)
        for _ in range(5):
            assert (await running.power.pause(MACHINE)).state is MachineState.PAUSED
            before = await still(running)
            await asyncio.sleep(0.2)
            assert (await running.fleet.stats(MACHINE)).cpu_seconds == before
            await running.power.resume(MACHINE)
            while (await running.fleet.stats(MACHINE)).cpu_seconds == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await running.power.kill(MACHINE)
        await busy


async def test_limits_change_in_the_kernel(running: Node) -> None:
    """Other sizes are those of the kernel at once, and those told afterwards."""
    boot = running.fleet.status(MACHINE).boot_id
    larger = SIZES.model_copy(update={"cpus": 0.25, "memory_mb": 256, "disk_mb": 4096})
    told = await running.power.resize(MACHINE, larger)
    assert told.boot_id == boot
    assert told.resources is not None
    assert (told.resources.cpus, told.resources.memory_mb) == (0.25, 256)
    assert told.resources.disk_mb == SIZES.disk_mb, "a disk grows at a boot"
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    assert str(256 * 2**20) in (await shell(running.host, MACHINE, limit)).output
    done = await shell(running.host, MACHINE, "python3 -c 'x = bytearray(160 << 20)'")
    assert done.code == 0, "what did not fit before fits now"


async def test_memory_in_use_is_not_taken_away(running: Node) -> None:
    """Less than is in use is refused with the figure, and the limit stays."""
    held = "python3 -c 'x = bytearray(90 << 20); print(1, flush=True); import time; time.sleep(60)'"
    await running.power.resize(MACHINE, SIZES.model_copy(update={"memory_mb": 256}))
    holding = asyncio.create_task(shell(running.host, MACHINE, held.replace("90", "150"), 90))
    try:
        while (await running.fleet.stats(MACHINE)).memory_bytes < 150 << 20:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        with pytest.raises(MemoryInUse, match=r"1\d\d MiB of memory are in use"):
            await running.power.resize(MACHINE, SIZES.model_copy(update={"memory_mb": 128}))
        assert (await running.fleet.stats(MACHINE)).memory_limit_bytes == 256 << 20
    finally:
        await running.power.kill(MACHINE)
        await holding


async def test_only_a_running_machine_is_resized(running: Node) -> None:
    """A paused or stopped machine is a conflict that says what to do."""
    await running.power.pause(MACHINE)
    with pytest.raises(Conflict, match="resume it first"):
        await running.power.resize(MACHINE, SIZES)
    await running.power.stop(MACHINE, 5)
    with pytest.raises(Conflict, match="start it first"):
        await running.power.resize(MACHINE, SIZES)
