"""A workspace with a kernel of its own, from its first boot to its last, with the real agent."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.connections import over
from tests.host.microvm.inside import ACCESS, POLICY, shell
from tests.host.node.conftest import opened_node, spec
from tests.host.node.waiting import until

from bastide.domain.machine import Driver, MachineState, SnapshotAfter
from bastide.node.errors import BootFailed
from bastide.node.machines.host import Host
from bastide.node.network import Network
from bastide.node.network.names import host_end
from bastide.node.node import Node

pytestmark = pytest.mark.host

SPEC = spec(network=POLICY, runtime=ACCESS, driver=Driver.MICROVM)
MACHINE = SPEC.id


async def restarted(host: Host) -> Host:
    """The host as a node sees it that has just started."""
    return Host.of(host.settings, Network(host.settings))


async def clock_error(host: Host) -> float:
    """Seconds by which the guest's clock is off at most."""
    before = time.time()
    told = float(await shell(host, MACHINE, "date +%s.%N"))
    after = time.time()
    return max(before - told, told - after, 0.0)


def unlink(name: str) -> None:
    """Take a machine's interface from under it, as a mishap of the host would."""
    subprocess.run(["ip", "link", "delete", name], check=True)


async def test_a_life(ground: Host) -> None:
    """Boot, own kernel, a lost link, pause, snapshot, restore; the last two after a restart too.

    The clock is right and randomness fresh whenever it goes on.
    """
    node = Node(ground)
    await node.open()
    await node.fleet.create(SPEC)
    booted = await node.power.start(SPEC)
    assert booted.tier == "microvm"
    kernel = ground.microvm.kernel
    assert kernel is not None
    assert await shell(ground, MACHINE, "uname -r") == kernel.record.release
    assert await clock_error(ground) < 1
    assert await shell(ground, MACHINE, "id -u; cat /proc/sys/kernel/hostname") == (
        f"0\n{SPEC.hostname}"
    )
    await shell(ground, MACHINE, "echo kept > /root/file; sleep 1000 >/dev/null 2>&1 & echo $!")
    unlink(host_end(ground.network.place(MACHINE).address))
    await node.sweep()
    assert await shell(ground, MACHINE, "echo linked again") == "linked again"
    paused = await node.power.pause(MACHINE)
    assert paused.state is MachineState.PAUSED
    await node.power.resume(MACHINE)
    assert await clock_error(ground) < 1
    taken = await node.captures.take(MACHINE, None)
    assert taken.state is MachineState.RUNNING
    assert taken.snapshot is not None
    assert taken.snapshot.memory_bytes > 2**20
    drawn = "head -c16 /dev/urandom | od -An -tx1"
    first = await shell(ground, MACHINE, drawn)
    await shell(ground, MACHINE, "echo lost > /root/file; echo lost > /root/other")
    restored = await node.captures.bring_back(SPEC)
    assert restored.tier == "microvm"
    assert restored.address == booted.address
    assert restored.boot_id not in {None, booted.boot_id}
    assert await shell(ground, MACHINE, drawn) != first
    assert await shell(ground, MACHINE, "cat /root/file; ls /root/other || true; pidof sleep")
    assert await clock_error(ground) < 1
    await node.close()  # the machine goes on

    fresh = await restarted(ground)
    async with opened_node(fresh) as other:
        adopted = other.fleet.status(MACHINE)
        assert adopted.state is MachineState.RUNNING
        assert adopted.boot_id == restored.boot_id
        assert "kept" in await shell(fresh, MACHINE, "cat /root/file")
        stats = await other.fleet.stats(MACHINE)
        assert stats.memory_limit_bytes == 128 * 2**20
        await other.captures.take(MACHINE, SnapshotAfter.STOP)
        assert other.fleet.status(MACHINE).state is MachineState.STOPPED
        again = await other.captures.bring_back(SPEC)
        assert again.state is MachineState.RUNNING
        assert await clock_error(fresh) < 1
        stopped = await other.power.stop(MACHINE, 20)
        assert stopped.exit is not None
        assert stopped.exit.code == 0


async def test_nobody_stays_connected_to_an_agent_that_is_put_away(ground: Host) -> None:
    """The gateway would use the connection again, which the agent that comes back drops."""
    async with opened_node(ground) as node:
        await node.fleet.create(SPEC)
        booted = await node.power.start(SPEC)
        with socket.create_connection((str(booted.address), 9990)) as kept:
            await node.captures.take(MACHINE, SnapshotAfter.STOP)
            assert over(kept)


WRITE = """
import os
os.makedirs("/root/d"); open("/root/d/file", "w").write("hi")
os.symlink("file", "/root/d/link"); os.link("/root/d/file", "/root/d/hard")
os.chown("/root/d/file", 33, 34); os.chmod("/root/d/file", 0o640)
os.setxattr("/root/d/file", "user.colour", b"blue"); os.unlink("/etc/debian_version")
os.utime("/root/d/file", ns=(10**18, 10**18 + 5))
"""
CHECK = """
import os
found = os.stat("/root/d/file")
assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (33, 34, 0o640)
assert found.st_nlink == 2 and found.st_mtime_ns == 10**18 + 5
assert os.readlink("/root/d/link") == "file" and open("/root/d/hard").read() == "hi"
assert os.getxattr("/root/d/file", "user.colour") == b"blue"
assert not os.path.exists("/etc/debian_version")
"""


async def test_a_disk_moves_between_the_tiers(ground: Host) -> None:
    """Files, owners, links, attributes and deletions are the same on either tier, and back."""
    async with opened_node(ground) as node:
        made = spec()
        await node.fleet.create(made)
        for driver, program, code in (
            (Driver.CONTAINER, WRITE + "raise SystemExit(3)", 3),
            (
                Driver.MICROVM,
                CHECK + "open('/root/d/more', 'w').write('x'); raise SystemExit(4)",
                4,
            ),
            (Driver.CONTAINER, CHECK + "assert open('/root/d/more').read() == 'x'", 0),
        ):
            command = ("/.bastide/bin/python3.11", "-I", "-S", "-c", program)
            started = made.model_copy(update={"driver": driver, "cmd": command})
            status = await node.power.start(started)
            assert status.tier == driver
            await until(lambda: node.fleet.status(made.id).state is MachineState.STOPPED)
            ended = node.fleet.status(made.id).exit
            assert ended is not None
            assert (ended.code, ended.requested) == (code, False)


async def test_a_failed_restore_leaves_the_disk_to_the_tier_that_wrote_it(ground: Host) -> None:
    """A container's snapshot that does not come back leaves a guest's disk a guest's.

    It would be mounted by the host unchecked otherwise; also when the node dies in the middle.
    """
    contained = SPEC.model_copy(update={"driver": Driver.CONTAINER})
    node = Node(ground)
    await node.open()
    await node.fleet.create(contained)
    await node.power.start(contained)
    await node.captures.take(MACHINE, SnapshotAfter.STOP)
    await node.power.start(SPEC)
    await shell(ground, MACHINE, "echo written by a guest > /root/file; sync")
    await node.power.stop(MACHINE, 20)
    program, ground.criu.program = ground.criu.program, Path("/bin/false")
    with pytest.raises(BootFailed, match="cannot be restored"):
        await node.captures.bring_back(contained)
    entry = node.fleet.entry(MACHINE)
    assert (entry.record.tier, entry.machine.tier) == ("microvm", "microvm")
    assert entry.record.former is None
    ground.criu.program = program

    # a node that died between the new disk and the first breath of the machine on it
    await node.fleet.note(entry, former=entry.record.origin, tier="container", booted=True)
    taken = ground.snapshots.get(MACHINE)
    assert taken is not None
    await asyncio.to_thread(ground.disks.stage, MACHINE, ground.snapshots.place(taken).disk)
    await asyncio.to_thread(ground.disks.replace, MACHINE)
    await node.close()
    async with opened_node(await restarted(ground)) as other:
        entry = other.fleet.entry(MACHINE)
        assert (entry.record.tier, entry.machine.tier) == ("microvm", "microvm")
        started = await other.power.start(contained)
        assert started.tier == "container"
        assert await shell(ground, MACHINE, "cat /root/file") == "written by a guest"
