"""Many guests at once, and memory that goes back; a drill (`script/drill microvm`)."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.host.microvm.inside import ACCESS, POLICY, shell
from tests.host.node.conftest import opened_node, spec
from tests.host.node.waiting import until

from bastide.domain.machine import Driver
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.host import Host
from bastide.node.machines.microvm.memory import ram_in_use
from bastide.settings import Settings

GUESTS = int(os.environ.get("BASTIDE_TEST_GUESTS", "0"))

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not GUESTS, reason="takes minutes: script/drill microvm"),
    pytest.mark.timeout(900),
]

MIB = 1024 * 1024


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Emulated boots beside each other take their time."""
    machines = settings.machines.model_copy(update={"boot_timeout": 300.0})
    return settings.model_copy(update={"machines": machines})


async def test_all_at_once(ground: Host) -> None:
    """So many of 128 MiB come up together and answer; without them nothing is left.

    The fixtures look for what is left.
    """
    guests = [
        spec(number, network=POLICY, runtime=ACCESS, driver=Driver.MICROVM, hostname=f"g{number}")
        for number in range(1, GUESTS + 1)
    ]
    async with opened_node(ground) as node:
        for each in guests:
            await node.fleet.create(each)
        async with asyncio.TaskGroup() as group:
            for each in guests:
                group.create_task(node.power.start(each))
        names = await asyncio.gather(*(shell(ground, each, "hostname") for each in guests))
        assert list(names) == [each.hostname for each in guests]
        drawn = await asyncio.gather(
            *(shell(ground, each, "head -c16 /dev/urandom | od -An -tx1") for each in guests)
        )
        assert len(set(drawn)) == len(guests)


async def test_freed_memory_goes_back(ground: Host) -> None:
    """What a guest has used for a while is the host's again soon after."""
    large = spec(1, network=POLICY, runtime=ACCESS, driver=Driver.MICROVM)
    resources = large.resources.model_copy(update={"memory_mb": 512})
    large = large.model_copy(update={"resources": resources})
    async with opened_node(ground) as node:
        await node.fleet.create(large)
        await node.power.start(large)
        assert await shell(ground, large, "head -c 200M /dev/zero | tail | wc -c")

        record = BootDirectory(ground.machines_dir / large.id).recorded()
        assert record is not None
        await until(lambda: ram_in_use(record.pid, 512 * MIB) < 250 * MIB)
