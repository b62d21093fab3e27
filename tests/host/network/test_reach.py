"""Who reaches whom, tried with real packets."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy

from . import stage as world
from .conftest import API_USER, EDGE_USER
from .stage import Guest, Stage

pytestmark = pytest.mark.host

OPEN = NetworkPolicy(
    public_access=True, ingress=("0.0.0.0/0", "10.211.0.0/16"), ingress_ports=(80,)
)
WIDE = NetworkPolicy(egress=("0.0.0.0/0",), ingress=("0.0.0.0/0",), ingress_ports=(80, 443))
DARK = NetworkPolicy(allow_internet=False)


async def test_internet_is_reached_through_the_host(stage: Stage) -> None:
    """Outbound TCP, UDP and ping work and come from the host's address."""
    machine = await stage.machine()
    assert machine.reach(world.INTERNET) == "open"
    assert machine.reach(world.ELSEWHERE, 443) == "open"
    assert machine.datagram(host=world.ELSEWHERE, port=443) == "open"
    assert machine.ping(host=world.INTERNET) == "open"
    assert stage.internet.wait_for(text=f"tcp {world.HOST}") == "open"


@pytest.mark.parametrize("policy", [NetworkPolicy(), OPEN, WIDE, DARK])
async def test_nothing_forbidden_is_reached_whatever_the_policy(
    stage: Stage, policy: NetworkPolicy
) -> None:
    """Host, gateway, metadata, private nets and unlinked neighbours are closed."""
    host = Guest()
    try:
        host.serve(port=8080)
        machine, neighbour = await stage.machine(policy), await stage.machine(OPEN)
        gateway = str(stage.network.gateway)
        for address in (world.HOST, gateway, "192.0.2.2" if _is_local("192.0.2.2") else gateway):
            assert machine.reach(address, 8080, deadline=0.3) == "silent"
            assert machine.datagram(host=address, port=8080, deadline=0.3) == "silent"
            assert machine.ping(host=address, deadline=0.3) == "silent"
        for address in (world.METADATA, world.PRIVATE, world.ALIBABA, world.AZURE):
            assert host.reach(address) == "open"  # they are there
        for address in (world.METADATA, world.PRIVATE, world.ALIBABA, world.AZURE, neighbour.ip):
            assert machine.reach(address) == "refused"
            assert machine.reach(address, 53) == "refused"
            assert machine.datagram(host=address, port=53, deadline=0.3) != "open"
            assert machine.ping(host=address, deadline=0.3) != "open"
        assert machine.reach("10.211.99.99", deadline=0.3) != "open"
    finally:
        host.close()


async def test_a_published_port_of_the_host_is_no_detour(stage: Stage) -> None:
    """Where the host forwards one of its ports into a private net, workspaces cannot follow."""
    world.run("nft", "add table ip bastide_test_dnat")
    try:
        chain = "add chain ip bastide_test_dnat pre { type nat hook prerouting priority dstnat; }"
        world.run("nft", chain)
        for port, target in ((8081, world.PRIVATE), (8082, world.OPENED)):
            rule = f"ip daddr {world.HOST} tcp dport {port} dnat to {target}:80"
            world.run("nft", f"add rule ip bastide_test_dnat pre {rule}")
        machine = await stage.machine()
        assert machine.reach(world.HOST, 8081) == "refused"
        assert machine.reach(world.HOST, 8082) == "open"  # the same detour, to an opened net
    finally:
        world.run("nft", "delete table ip bastide_test_dnat")


async def test_exceptions(stage: Stage) -> None:
    """`allow_private` opens its range; name servers outside are as closed as everything else."""
    machine = await stage.machine()
    assert machine.reach(world.OPENED) == "open"
    assert machine.reach(world.INTERNET, 53) == "open"
    await stage.network.apply(machine.name, DARK)
    assert machine.reach(world.OPENED) == "refused"
    assert machine.reach(world.INTERNET) == "refused"
    assert machine.reach(world.INTERNET, 53) == "refused"
    assert machine.sent(world.INTERNET, 53) == "unreachable"
    assert stage.network.nameservers == ("10.211.0.1",)


async def test_egress_lists(stage: Stage) -> None:
    """Only the listed ranges and ports are reached."""
    policy = NetworkPolicy(egress=("198.51.100.0/24",), egress_ports=(443, 444))
    machine = await stage.machine(policy)
    assert machine.reach(world.ELSEWHERE, 443) == "open"
    assert machine.sent(world.ELSEWHERE, 444) == "refused"  # nobody listens: an error from there
    assert machine.reach(world.ELSEWHERE, 80) == "refused"
    assert machine.sent(world.ELSEWHERE, 80) == "unreachable"
    assert machine.reach(world.INTERNET, 443) == "refused"
    assert machine.ping(host=world.ELSEWHERE, deadline=0.3) != "open"


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (NetworkPolicy(), "silent"),
        (NetworkPolicy(ingress_ports=(80,)), "silent"),
        (NetworkPolicy(ingress_ports=(80,), public_access=True), "silent"),
        (NetworkPolicy(ingress=("203.0.113.0/24",)), "silent"),
        (NetworkPolicy(ingress=("198.51.100.0/24",), ingress_ports=(80,)), "silent"),
        (NetworkPolicy(ingress=("203.0.113.0/24",), ingress_ports=(443,)), "silent"),
        (NetworkPolicy(ingress=("203.0.113.0/24",), ingress_ports=(80,)), "open"),
    ],
)
async def test_from_outside(stage: Stage, policy: NetworkPolicy, outcome: str) -> None:
    """Inbound needs an admitted source and an open port; everyone else hears nothing."""
    machine = await stage.machine(policy)
    patience = 20 if outcome == "open" else 0.3
    assert stage.internet.reach(machine.ip, 80, deadline=patience) == outcome
    assert stage.internet.datagram(host=machine.ip, port=80, deadline=patience) == outcome
    assert stage.internet.ping(host=machine.ip, deadline=0.3) == "silent"


async def test_links_are_one_way_and_need_the_port(stage: Stage) -> None:
    """A linked caller reaches the open port, at once and even without internet; no way back."""
    caller = await stage.machine(NetworkPolicy(allow_internet=False, ingress_ports=(80,)))
    other = await stage.machine()
    target = await stage.machine(NetworkPolicy(links=(caller.ip,)))
    assert caller.reach(target.ip) == "refused"
    await stage.network.apply(target.name, NetworkPolicy(links=(caller.ip,), ingress_ports=(80,)))
    assert caller.reach(target.ip) == "open"
    assert caller.datagram(host=target.ip, port=80) == "open"
    await stage.network.apply(
        target.name, NetworkPolicy(links=(caller.ip,), ingress_ports=(80, 81))
    )
    assert caller.sent(target.ip, 81) == "refused"  # nobody listens: the target's own error
    assert target.reach(caller.ip) == "refused"
    assert other.reach(target.ip) == "refused"


async def test_users_of_the_host(stage: Stage) -> None:
    """Open ports are the edge's, the control port the api's and root's; nobody else's."""
    machine = await stage.machine(NetworkPolicy(public_access=True, ingress_ports=(80,)))
    machine.serve(port=CONTROL_PORT)
    machine.serve(port=443)
    edge, api = (Guest(user=pwd.getpwnam(name).pw_uid) for name in (EDGE_USER, API_USER))
    root, other = Guest(), Guest(user=54321)
    try:
        for who, control, opened in (
            (edge, "refused", "open"),
            (api, "open", "refused"),
            (root, "open", "refused"),
            (other, "refused", "refused"),
        ):
            assert who.reach(machine.ip, CONTROL_PORT) == control
            assert who.reach(machine.ip, 80) == opened
            assert who.reach(machine.ip, 443) == "refused"
            assert who.datagram(host=machine.ip, port=80, deadline=0.3) != "open"
        await stage.network.apply(machine.name, NetworkPolicy(ingress_ports=(80,)))
        assert edge.reach(machine.ip, 80) == "refused"
    finally:
        for guest in (edge, api, root, other):
            guest.close()


async def test_connections_end_with_their_admission(stage: Stage) -> None:
    """Revoked: the connection is cut in both directions. Still admitted: it goes on."""
    both = ("198.51.100.0/24", "203.0.113.0/24")
    caller = await stage.machine()
    machine = await stage.machine(
        NetworkPolicy(
            egress=both, ingress=("203.0.113.0/24",), ingress_ports=(80,), links=(caller.ip,)
        )
    )
    assert machine.reach(world.ELSEWHERE, hold="kept") == "open"
    assert machine.reach(world.INTERNET, hold="cut") == "open"
    assert machine.datagram(host=world.INTERNET, port=80, hold="cut udp") == "open"
    assert caller.reach(machine.ip, hold="link") == "open"
    assert caller.datagram(host=machine.ip, port=80, hold="link udp") == "open"
    assert stage.internet.reach(machine.ip, 80, hold="inbound") == "open"
    for name in ("kept", "cut", "cut udp"):
        assert machine.talk(name=name) == "open"
    await stage.network.apply(machine.name, NetworkPolicy(egress=both[:1], ingress_ports=(80,)))
    assert machine.talk(name="kept") == "open"
    for guest, name in (
        (machine, "cut"),
        (machine, "cut udp"),
        (caller, "link"),
        (caller, "link udp"),
        (stage.internet, "inbound"),
    ):
        assert guest.talk(name=name, deadline=0.5) != "open"


async def test_one_workspace_cannot_take_all_connections(stage: Stage) -> None:
    """Past its bound a workspace's new connections are refused; a neighbour's are not."""
    greedy, modest = await stage.machine(), await stage.machine()
    outcomes = [greedy.reach(world.INTERNET, hold=str(number)) for number in range(70)]
    assert outcomes[:60] == ["open"] * 60
    assert outcomes[-1] == "refused"
    assert modest.reach(world.INTERNET) == "open"


def _is_local(address: str) -> bool:
    return f" {address}\n" in Path("/proc/net/fib_trie").read_text()
