"""Limits the kernel holds: processes, memory, processor, bytes and inodes of the disk."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from tests.host.node.conftest import opened_node, script, spec
from tests.host.node.inside import Done, shell

from bastide.domain.machine import MachineState, Resources
from bastide.node.disks import MIB, usage
from bastide.node.errors import BootFailed, NoSpace
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id


@pytest.fixture
async def running(plain_node: Node) -> Node:
    """A node with one running machine of 128 MiB memory and disk and 64 processes."""
    await plain_node.fleet.create(spec())
    await plain_node.power.start(spec())
    return plain_node


async def sh(node: Node, text: str) -> Done:
    return await shell(node.host, MACHINE, text, 60)


async def test_processes_are_bounded(running: Node) -> None:
    """A fork bomb ends at the limit, and the machine can still be stopped."""
    done = await sh(running, "for i in $(seq 200); do sleep 30 > /dev/null 2>&1 & done; echo all")
    assert "all" not in done.output
    assert "fork" in done.output.lower()
    stats = await running.fleet.stats(MACHINE)
    assert stats.pids <= 64
    stopped = await running.power.stop(MACHINE, 5)
    assert stopped.state is MachineState.STOPPED


async def test_memory_is_bounded(running: Node) -> None:
    """A process that wants more than there is gets killed; the machine goes on."""
    done = await sh(running, "python3 -c 'x = bytearray(300 * 1024 * 1024)'")
    assert done.code == 137
    assert running.fleet.status(MACHINE).state is MachineState.RUNNING
    assert running.host.cgroups.oom_kills(MACHINE) >= 1


async def test_memory_files_count(running: Node) -> None:
    """/dev/shm and /run are bounded, and are paid for with the machine's own memory."""
    for path in ("/dev/shm", "/run"):
        done = await sh(running, f"dd if=/dev/zero of={path}/big bs=1M count=200; rm {path}/big")
        assert "No space left" in done.output, path


async def test_processor_time_is_bounded(plain_node: Node) -> None:
    """A quarter of a core and no more, whatever the number of processes."""
    quarter = spec(5, resources=Resources(cpus=0.25, memory_mb=128, disk_mb=128, pids=64))
    await plain_node.fleet.create(quarter)
    await plain_node.power.start(quarter)
    used = (await plain_node.fleet.stats(quarter.id)).cpu_seconds
    begin = time.monotonic()
    loops = "for i in 1 2 3 4; do timeout 2 sh -c 'while :; do :; done' & done; wait"
    await shell(plain_node.host, quarter.id, loops, 60)
    used = (await plain_node.fleet.stats(quarter.id)).cpu_seconds - used
    assert 0 < used < (time.monotonic() - begin) * 0.25 * 1.2


async def test_the_disk_is_a_quota_of_bytes(running: Node) -> None:
    """Writing ends at the size of the disk; what is removed goes back to the host."""
    done = await sh(running, "dd if=/dev/zero of=/root/big bs=1M count=500; sync")
    assert "No space left" in done.output
    file = running.host.disks.path(MACHINE)
    assert file.stat().st_blocks * 512 <= 128 * MIB
    full = file.stat().st_blocks * 512
    await sh(running, "rm /root/big; sync")
    await running.power.stop(MACHINE, 5)
    assert file.stat().st_blocks * 512 < full - 64 * MIB


async def test_the_disk_is_a_quota_of_inodes(running: Node) -> None:
    """Empty files end too, before they cost the host anything."""
    done = await sh(
        running,
        "mkdir /root/many; cd /root/many; "
        'python3 -c "import os\nfor i in range(10**6): os.mknod(str(i))"',
    )
    assert "No space left" in done.output
    stats = await running.fleet.stats(MACHINE)
    assert stats.disk_bytes <= stats.disk_limit_bytes


async def test_the_disk_grows_at_the_next_boot(running: Node) -> None:
    """A larger disk_mb takes effect when the machine starts; a smaller one changes nothing."""
    await sh(running, "echo kept > /root/file")
    await running.power.stop(MACHINE, 5)
    larger = spec(resources=Resources(cpus=1, memory_mb=128, disk_mb=512, pids=64))
    await running.power.start(larger)
    assert (await sh(running, "cat /root/file")).output == "kept"
    size = int((await sh(running, "df -Pm / | awk 'END {print $2}'")).output)
    assert 400 < size <= 512
    await running.power.stop(MACHINE, 5)
    await running.power.start(spec())
    assert running.host.disks.path(MACHINE).stat().st_size == 512 * MIB
    assert usage(running.host.machines_dir / MACHINE / "disk") < 64 * MIB


async def test_a_full_host_is_told_of_before_anything_is_made(
    plain_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little room on the host a create is refused and leaves nothing."""
    monkeypatch.setattr("bastide.node.disks.RESERVE_BYTES", 2**60)
    with pytest.raises(NoSpace, match="MiB are free"):
        await plain_node.fleet.create(spec())
    assert plain_node.fleet.known == set()
    assert plain_node.host.network.address(MACHINE) is None
    assert plain_node.host.disks.all() == []


async def test_process_one_out_of_memory_is_told(plain_node: Node) -> None:
    """A machine that ends because its memory ran out says so."""
    greedy = "cat > /dev/null; echo READY; sleep 0.3; exec /usr/bin/python3 -c 'bytearray(3<<28)'"
    async with opened_node(replace(plain_node.host, argv=script(greedy))) as node:
        await node.fleet.create(spec(7))
        await node.power.start(spec(7))
        async with asyncio.timeout(20):
            async for event in node.events.listen(20):
                if event is not None and event.type == "exited":
                    break
        ended = node.fleet.status(spec(7).id).exit
        assert ended is not None
        assert ended.oom
        assert not ended.requested


async def test_a_damaged_disk_is_told(plain_node: Node) -> None:
    """A disk whose file system is gone fails the boot with a reason, and can be deleted."""
    await plain_node.fleet.create(spec())
    with plain_node.host.disks.path(MACHINE).open("r+b") as file:
        file.write(bytes(2**20))
    with pytest.raises(BootFailed, match="is damaged"):
        await plain_node.power.start(spec())
    await plain_node.fleet.delete(MACHINE)
