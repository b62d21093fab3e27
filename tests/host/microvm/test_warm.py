"""A machine that begins where another's guest had not been told yet who it is."""

from __future__ import annotations

import time

import pytest
from tests.host.microvm.inside import ACCESS, POLICY, shell
from tests.host.node.conftest import opened_node, spec

from bastide.domain.machine import Driver, MachineSpec
from bastide.node.machines.host import Host

pytestmark = pytest.mark.host


WHO = """
cat /proc/sys/kernel/hostname /etc/hostname /proc/sys/kernel/random/boot_id
cat /etc/hosts /etc/resolv.conf /proc/cmdline; ls -A /root; printenv WHOSE || true
head -c 16 /dev/urandom | od -An -tx1
"""
ROOT = """
cat /proc/1/comm; readlink /proc/1/root; ls / | tr '\\n' ' '; ls -A /dev | tr '\\n' ' '
awk '{print $2, $3, $4}' /proc/mounts | sort; cat /proc/self/cgroup /proc/self/oom_score_adj
ulimit -n; stat -fc %b /
"""


def named(number: int, hostname: str, disk_mb: int) -> MachineSpec:
    """A machine with a name, an environment and a disk of its own size."""
    made = spec(number, network=POLICY, runtime=ACCESS, driver=Driver.MICROVM, hostname=hostname)
    resources = made.resources.model_copy(update={"disk_mb": disk_mb})
    return made.model_copy(update={"env": {"WHOSE": hostname}, "resources": resources})


async def test_the_second_of_a_kind_begins_warm(ground: Host) -> None:
    """It is itself in all it is told and draws, sees what a cold one sees, and is told the time."""
    first, second = named(1, "first", 128), named(2, "second", 192)
    async with opened_node(ground) as node:
        for each in (first, second):
            await node.fleet.create(each)
        cold = (await node.power.start(first)).timings
        assert await shell(ground, first, "touch /root/of-first; echo hello") == "hello"
        warm = (await node.power.start(second)).timings
        assert "save" in cold
        assert "memory" not in cold
        assert "memory" in warm
        mine, other = await shell(ground, second, WHO), await shell(ground, first, WHO)
        assert mine.splitlines()[:2] == ["second", "second"]
        assert other.splitlines()[:2] == ["first", "first"]
        assert f"{ground.network.address(second.id)} second" in mine
        assert "of-first" in other
        assert "first" not in mine
        assert mine.splitlines()[2] != other.splitlines()[2]  # the kernel's id of this boot
        assert mine.splitlines()[-1] != other.splitlines()[-1]
        before = time.time()
        told = float(await shell(ground, second, "date +%s.%N"))
        assert before - 1 < told < time.time() + 1
        # the same view, but for the size of the disk
        views = [(await shell(ground, each, ROOT)).splitlines() for each in (first, second)]
        assert [a for a, b in zip(*views, strict=True) if a != b] == [views[0][-1]]
        assert int(views[1][-1]) > int(views[0][-1])
        await node.power.stop(second.id, 10)
        # one that does not load is thrown away, and the machine starts cold, on its own disk
        (saved,) = (ground.settings.state_dir / "warm").glob("*/memory")
        saved.write_bytes(b"nothing of use")
        again = (await node.power.start(second)).timings
        assert "memory" not in again
        assert "of-first" not in await shell(ground, second, "ls -A /root")
