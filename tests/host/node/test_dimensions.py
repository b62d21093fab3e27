"""What programs inside read of their machine's memory and cores."""

from __future__ import annotations

import asyncio
import os
import re

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import shell

from bastide.domain.machine import SnapshotAfter
from bastide.node.machines.cores import Cores
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id
SIZES = spec().resources
TOTAL = "awk '/^MemTotal/ {print $2}' /proc/meminfo"
COUNTS = (
    "nproc; getconf _NPROCESSORS_ONLN; grep -c ^processor /proc/cpuinfo; "
    "grep -c '^cpu[0-9]' /proc/stat; "
    "python3 -c 'import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))'"
)
needs_cores = pytest.mark.skipif(len(Cores().all) < 2, reason="the host has one core")


@pytest.fixture
async def running(node: Node) -> Node:
    """A node with one running machine of one processor and 128 MiB, and its agent."""
    await node.fleet.create(spec())
    await node.power.start(spec())
    return node


async def read(node: Node, text: str) -> list[str]:
    """The words a line of shell prints inside."""
    done = await shell(node.host, MACHINE, text)
    assert done.code == 0, done.output
    return done.output.split()


async def reads(node: Node) -> None:
    """Wait for the program that reads all the time to have read whole lines."""
    async with asyncio.timeout(60):
        while True:
            seen = (await shell(node.host, MACHINE, "cat /root/seen")).output
            if re.fullmatch(r"MemTotal: +131072 kB\n[0-9,-]+", seen):
                return


@needs_cores
async def test_programs_see_their_own_size(running: Node) -> None:
    """`nproc`, `free`, Python and the files they read tell the limits, also when these change."""
    if not running.host.cgroups.limits_cores:
        pytest.skip("the kernel's cpusets are not to be had here")
    assert await read(running, TOTAL) == [str(128 * 1024)]
    assert (await read(running, "free -m | awk '/^Mem/ {print $2} /^Swap/ {print $2}'"))[:2] == [
        "128",
        "0",
    ]
    assert set(await read(running, COUNTS)) == {"1"}
    larger = SIZES.model_copy(update={"cpus": 2.0, "memory_mb": 256})
    await running.power.resize(MACHINE, larger)
    assert await read(running, TOTAL) == [str(256 * 1024)]
    assert set(await read(running, COUNTS)) == {"2"}
    await running.power.resize(MACHINE, SIZES.model_copy(update={"cpus": 0.25}))
    assert set(await read(running, COUNTS)) == {"1"}


async def test_use_is_told_as_it_changes(running: Node) -> None:
    """What programs take goes from the memory that is free, and the processor's time counts up."""
    free = "awk '/^MemAvailable/ {print $2}' /proc/meminfo; awk '/^cpu / {print $2}' /proc/stat"
    await running.fleet.refresh()
    before, used = map(int, await read(running, free))
    hold = "python3 -c 'import time; x = bytearray(48 << 20); time.sleep(120)' > /dev/null 2>&1 &"
    await read(running, hold)

    async with asyncio.timeout(60):
        while True:
            await running.fleet.refresh()
            after, now = map(int, await read(running, free))
            if before - after > 40 * 1024 and now > used:
                return


async def test_nobody_inside_can_change_what_is_told(running: Node) -> None:
    """The files are the node's: they can be neither written nor unmounted nor replaced."""
    tries = (
        "echo x > /proc/meminfo",
        "rm -f /proc/stat",
        "umount /proc/cpuinfo",
        "chmod 666 /proc/stat",
        "mount --bind /etc/hosts /proc/meminfo",
        "mv /etc/hosts /proc/cpuinfo",
    )
    for text in tries:
        assert (await shell(running.host, MACHINE, text)).code != 0, text
    assert await read(running, TOTAL) == [str(128 * 1024)]


async def test_open_files_go_through_a_snapshot(running: Node) -> None:
    """A program that holds these files open is captured, and reads on after the restore."""
    if running.capabilities().snapshot_unavailable_reason:
        pytest.skip("no snapshots on this host")
    holding = (
        "import time; files = [open(name) for name in ('/proc/meminfo', '/proc/stat', "
        "'/proc/cpuinfo', '/sys/devices/system/cpu/online')]\n"
        "while True:\n"
        " [file.seek(0) for file in files]\n"
        " open('/root/seen', 'w').write(files[0].readline() + files[3].readline())\n"
        " time.sleep(0.05)"
    )
    await read(running, f'setsid python3 -c "{holding}" < /dev/null > /dev/null 2>&1 &')
    await reads(running)
    await running.captures.take(MACHINE, SnapshotAfter.RESUME)
    await running.captures.bring_back(spec())
    await read(running, "rm /root/seen")
    await reads(running)
    assert await read(running, TOTAL) == [str(128 * 1024)]


async def test_a_node_that_starts_anew_knows_who_is_where(running: Node) -> None:
    """An adopted machine is counted on its cores."""
    if len(os.sched_getaffinity(0)) < 2 or not running.host.cgroups.limits_cores:
        pytest.skip("there is nothing to choose from")
    held = running.host.cores.of(MACHINE)
    machine = running.fleet.entry(MACHINE).machine
    running.host.cores.leave(MACHINE)
    assert machine.process is not None
    machine.process.forget()
    assert await machine.adopt() is not None
    assert running.host.cores.of(MACHINE) == held
