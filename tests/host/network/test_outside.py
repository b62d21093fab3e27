"""How a workspace is seen from outside, how fast, and what a flood of one costs another."""

from __future__ import annotations

import asyncio
import time

import pytest

from bastide.domain.network import NetworkPolicy
from bastide.node.errors import Invalid

from . import stage as world
from .stage import Machine, Stage

pytestmark = pytest.mark.host

MBPS = 20.0


async def test_the_outbound_address_is_chosen(stage: Stage) -> None:
    """A workspace leaves as the address of the pool it was given, its neighbour as the host."""
    chosen = await stage.machine(NetworkPolicy(outbound_ip=world.POOLED))
    other = await stage.machine()
    seen = str(chosen.seen_as(host=world.INTERNET))
    assert seen == world.POOLED
    assert other.seen_as(host=world.INTERNET) == world.HOST
    await stage.network.apply(chosen.name, NetworkPolicy())
    assert chosen.seen_as(host=world.INTERNET) == world.HOST
    await stage.network.apply(chosen.name, NetworkPolicy(outbound_ip=world.POOLED))
    await stage.network.sweep({})
    assert chosen.seen_as(host=world.INTERNET) == world.POOLED
    with pytest.raises(Invalid):
        await stage.network.apply(chosen.name, NetworkPolicy(outbound_ip=world.ELSEWHERE))
    assert chosen.seen_as(host=world.INTERNET) == world.POOLED


def rate(machine: Machine) -> float:
    """Megabits a second of one stream with the internet."""
    began = time.monotonic()
    count = int(machine.stream(host=world.INTERNET, port=80, size=3_000_000))
    return count * 8 / 1e6 / (time.monotonic() - began)


async def test_bandwidth_is_bounded_both_ways(stage: Stage) -> None:
    """A limit holds for what is sent and what is received, is changed hot, lifted, and swept."""
    machine = await stage.machine(NetworkPolicy(bandwidth_mbps=MBPS))
    # An echo goes through both buckets at once, so this is the rate of each.
    assert MBPS * 0.4 < rate(machine) < MBPS * 1.2
    assert len(world.buckets()) == 2
    await stage.network.apply(machine.name, NetworkPolicy(bandwidth_mbps=MBPS / 2))
    assert rate(machine) < MBPS * 0.6
    assert machine.reach(world.METADATA) == "refused"
    await stage.network.sweep({})
    assert rate(machine) < MBPS * 0.6
    await stage.network.apply(machine.name, NetworkPolicy())
    assert world.buckets() == []
    assert world.devices("bi0ad3*") == []


async def test_the_server_bounds_every_workspace(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`machines.bandwidth_mbps` holds without a limit of the workspace's own, and above one."""
    settings = stage.network._settings
    machines = settings.machines.model_copy(update={"bandwidth_mbps": MBPS})
    bounded = settings.model_copy(update={"machines": machines})
    monkeypatch.setattr(stage.network, "_settings", bounded)
    machine = await stage.machine()
    for own, rate_in_force in ((None, 20), (5.0, 5), (1000.0, 20), (None, 20)):
        await stage.network.apply(machine.name, NetworkPolicy(bandwidth_mbps=own))
        assert [f"rate {rate_in_force}Mbit" in line for line in world.buckets()] == [True, True]
    await stage.network.sweep({})
    assert ["rate 20Mbit" in line for line in world.buckets()] == [True, True]


async def test_a_limited_machine_that_goes_leaves_no_device(stage: Stage) -> None:
    """With the link go its buckets, also when it is the sweep that removes it."""
    machine = await stage.machine(NetworkPolicy(bandwidth_mbps=MBPS))
    assert len(world.devices("bi0ad3*")) == 1
    await stage.network.detach(machine.name)
    assert world.devices("bi0ad3*") == []
    await stage.network.attach(machine.name, machine.pid, NetworkPolicy(bandwidth_mbps=MBPS))
    await stage.network.sweep({})
    await stage.network.sweep({})
    assert world.devices("bi0ad3*") == []


async def test_a_flood_of_refused_packets_is_counted_not_told_of_one_by_one(stage: Stage) -> None:
    """Fifty thousand refused packets: the count is right, the log short, neighbours unharmed."""
    loud = await stage.machine(NetworkPolicy(allow_internet=False))
    quiet = await stage.machine(NetworkPolicy(allow_internet=False))
    await asyncio.to_thread(lambda: loud.pour(host=world.INTERNET, port=9, count=50_000))
    assert quiet.reach(world.ELSEWHERE, 443) == "refused"

    async with asyncio.timeout(20):
        while not (await stage.network.blocked(quiet.name)).blocked:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    log = await stage.network.blocked(loud.name)
    assert log.packets >= 10_000
    assert sum(entry.count for entry in log.blocked) < 1000
    (entry,) = (await stage.network.blocked(quiet.name)).blocked
    assert (entry.destination, entry.port) == (world.ELSEWHERE, 443)
    before = log.packets
    await stage.network.sweep({})
    assert (await stage.network.blocked(loud.name)).packets >= before
