"""Links and rules over a machine's life, a crash and a sweep."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bastide.domain.network import NetworkPolicy
from bastide.node.errors import Conflict, Invalid, NotFound, NotReady
from bastide.node.network import Network, SweepCount, link, rules
from bastide.node.network.chains import Plan
from bastide.node.network.names import host_end
from bastide.node.network.ruleset import Element

from . import stage as world
from .conftest import settings_in
from .stage import TABLE, Guest, Machine, Stage

pytestmark = pytest.mark.host

elements = rules.elements
LINKED = NetworkPolicy(ingress=("203.0.113.0/24",), ingress_ports=(80,))


async def test_inside_there_is_one_interface_and_one_way_out(stage: Stage) -> None:
    """`eth0` with a /32, the gateway on it, the way out's MTU, and ping without a privilege."""
    machine = await stage.machine()
    shown = world.run("nsenter", "--net", f"--target={machine.pid}", "ip", "-4", "-o", "address")
    assert f"eth0    inet {machine.ip}/32" in shown
    routes = str(machine.read(path="/proc/net/route")).splitlines()
    assert len(routes) == 2
    assert routes[1].split()[:3] == ["eth0", "00000000", "0100D30A"]
    assert str(machine.read(path="/proc/sys/net/ipv4/ping_group_range")).split()[0] == "0"


async def test_attach_twice_and_detach_twice(stage: Stage) -> None:
    """A second attach replaces the link; a second detach, or one of a stranger, is harmless."""
    machine = await stage.machine()
    await stage.network.attach(machine.name, machine.pid, LINKED)
    assert machine.reach(world.INTERNET) == "open"
    assert stage.internet.reach(machine.ip) == "open"
    for name in (machine.name, machine.name, "ws_ffffffff"):
        await stage.network.detach(name)
    assert machine.reach(world.INTERNET) == "unreachable"
    assert stage.network.counters(machine.name) == (0, 0)


async def test_the_host_itself_is_never_configured(network: Network) -> None:
    """A process in the host's namespace, or none at all, is refused and leaves nothing."""
    network.reserve("ws_1")
    for pid in (os.getpid(), 2**22 + 1):
        with pytest.raises(Conflict):
            await network.attach("ws_1", pid, NetworkPolicy())
    assert await network.sweep({}) == SweepCount()


async def test_a_wrong_policy_changes_nothing(stage: Stage) -> None:
    """The policy in force stays, and a machine is not attached with a wrong one."""
    machine = await stage.machine(LINKED)
    wrong = NetworkPolicy(egress=("not a name",))
    with pytest.raises(Invalid):
        await stage.network.apply(machine.name, wrong)
    assert stage.internet.reach(machine.ip) == "open"
    with pytest.raises(NotFound):
        await stage.network.attach("ws_none", machine.pid, LINKED)


async def test_a_change_the_kernel_refuses_changes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One element that the kernel does not take: the whole policy before stays, and it is said."""
    machine = await stage.machine(LINKED)
    assert machine.reach(world.INTERNET, hold="kept") == "open"
    wanted = NetworkPolicy(allow_internet=False, ingress=(world.ELSEWHERE,), ingress_ports=(80,))

    def broken(address: IPv4Address, policy: NetworkPolicy, plan: Plan) -> frozenset[Element]:
        return elements(address, policy, plan) | {Element("no_such_set", (address,))}

    with monkeypatch.context() as broke:
        broke.setattr(rules, "elements", broken)
        for _ in range(2):
            with pytest.raises(NotReady, match="refused a change"):
                await stage.network.apply(machine.name, wanted)
            assert machine.talk(name="kept") == "open"
            assert machine.reach(world.INTERNET) == "open"
            assert stage.internet.reach(machine.ip) == "open"
    await stage.network.apply(machine.name, wanted)
    assert machine.talk(name="kept") != "open"
    assert stage.internet.reach(machine.ip, deadline=0.3) == "silent"


async def test_counters_tell_in_from_out(stage: Stage) -> None:
    """What the workspace receives is `in`, what it sends is `out`."""
    machine = await stage.machine(LINKED)
    before = stage.network.counters(machine.name)
    for _ in range(20):
        machine.frame(data="ff" * 6 + "02" * 6 + "9000" + "00" * 1000)  # answered by nobody
    received, sent = (
        after - earlier
        for after, earlier in zip(stage.network.counters(machine.name), before, strict=True)
    )
    assert sent > 20_000
    assert received < 5_000


async def test_a_dead_machine_is_swept(stage: Stage) -> None:
    """Links and rules of what does not run go; a machine just attached is spared once."""
    machine, gone = await stage.machine(LINKED), await stage.machine()
    assert await stage.network.sweep({}) == SweepCount()
    running = {machine.name: LINKED}
    count = await stage.network.sweep(running)
    assert count == SweepCount(links=1, rules=1)
    assert gone.reach(world.INTERNET) == "unreachable"
    assert stage.internet.reach(machine.ip) == "open"
    assert await stage.network.sweep(running) == SweepCount()


async def test_a_lost_table_is_restored(stage: Stage) -> None:
    """Someone flushed the firewall: the sweep writes it anew, connections go on."""
    machine = await stage.machine(LINKED)
    assert machine.reach(world.INTERNET, hold="kept") == "open"
    world.run("nft", "delete", "table", "inet", TABLE)
    assert await stage.network.sweep({machine.name: LINKED}) == SweepCount(restored=1)
    assert machine.talk(name="kept") == "open"
    assert machine.reach(world.METADATA) == "refused"


async def test_a_running_machine_without_a_link_is_reported(stage: Stage) -> None:
    """The sweep names machines that need `attach` again, and attaching them works."""
    machine = await stage.machine()
    world.run("ip", "link", "delete", host_end(IPv4Address(machine.ip)))
    count = await stage.network.sweep({machine.name: LINKED})
    assert count == SweepCount(rules=1, dark=(machine.name,))
    await stage.network.attach(machine.name, machine.pid, LINKED)
    assert stage.internet.reach(machine.ip) == "open"


async def test_no_name_is_open_before_what_runs_is_known(stage: Stage, tmp_path: Path) -> None:
    """A node that starts anew tells the resolver nothing until it knows every restriction."""
    settings = settings_in(tmp_path)
    settings.resolver_socket.unlink()
    again = Network(settings)
    try:
        await again.setup()
        assert not settings.resolver_socket.exists()
        assert await stage.network.sweep({}) == SweepCount()
        assert await again.sweep({}) == SweepCount()
        assert settings.resolver_socket.is_socket()
    finally:
        await again.close()


async def test_another_process_adopts_what_runs(stage: Stage, tmp_path: Path) -> None:
    """After a restart, even one that lost the leases, machines keep address, link and policy."""
    machine = await stage.machine(LINKED)
    assert machine.reach(world.INTERNET, hold="kept") == "open"
    (tmp_path / "network" / "leases.json").unlink()
    again = Network(settings_in(tmp_path))
    try:
        await again.setup()
        assert str(again.address(machine.name)) == machine.ip
        assert machine.talk(name="kept") == "open"
        assert stage.internet.reach(machine.ip) == "open"
        assert await again.sweep({machine.name: LINKED}) == SweepCount()
        await again.apply(machine.name, NetworkPolicy())
        assert stage.internet.reach(machine.ip, deadline=0.3) == "silent"
    finally:
        await again.close()


@pytest.mark.parametrize("step", ["_configure_inside", "_write", "_mac"])
async def test_killed_in_the_middle_leaves_a_dark_machine(
    network: Network, outside: Guest, tmp_path: Path, step: str
) -> None:
    """Killed at any step of attach: nothing gets in or out, and a sweep clears it."""
    machine = Machine(network, "ws_00000001")
    try:
        code = (
            "import asyncio, os, signal\n"
            "from pathlib import Path\n"
            "from bastide.domain.network import NetworkPolicy\n"
            "from bastide.node.network import Network, link\n"
            "from tests.host.network.conftest import settings_in\n"
            f"network = Network(settings_in(Path({str(tmp_path)!r})))\n"
            f"link.{step} = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"asyncio.run(network.attach('ws_00000001', {machine.pid}, NetworkPolicy()))\n"
        )
        root = Path(__file__).parents[3]
        ended = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=root, stderr=subprocess.PIPE
        )
        _, errors = await ended.communicate()
        assert ended.returncode == -signal.SIGKILL, errors.decode()
        assert machine.reach(world.INTERNET) == "unreachable"
        assert outside.reach(machine.ip, deadline=0.3) != "open"
        await network.sweep({})
        assert not link.exists(network.reserve("ws_00000001"))
        await network.attach("ws_00000001", machine.pid, LINKED)
        assert machine.reach(world.INTERNET) == "open"
    finally:
        await network.detach("ws_00000001")
        machine.close()


async def test_many_at_once(stage: Stage) -> None:
    """Thirty machines attached at the same time all work and all go."""
    machines = [Machine(stage.network, f"ws_{number:08x}") for number in range(30)]
    stage.machines.extend(machines)
    await asyncio.gather(
        *(stage.network.attach(one.name, one.pid, NetworkPolicy()) for one in machines)
    )
    assert {machine.reach(world.INTERNET) for machine in machines} == {"open"}
    await asyncio.gather(*(stage.network.detach(one.name) for one in machines))
    assert await stage.network.sweep({}) == SweepCount()


def test_a_subnet_in_use_is_refused(outside: Guest, tmp_path: Path) -> None:
    """Setup says which route is in the way and takes nothing over."""
    world.run("ip", "route", "add", "10.211.4.0/24", "dev", world.UPLINK)
    try:
        network = Network(settings_in(tmp_path))
        with pytest.raises(Conflict, match=r"10\.211\.4\.0/24"):
            asyncio.run(network.setup())
        asyncio.run(network.close())
    finally:
        world.run("ip", "route", "delete", "10.211.4.0/24", "dev", world.UPLINK)
