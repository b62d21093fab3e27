"""Egress by name, tried with real packets, a real resolver process and a real name server."""

from __future__ import annotations

import asyncio

import pytest

from bastide.domain.network import NetworkPolicy

from . import stage as world
from .conftest import Resolver
from .stage import Machine, NameServer, Stage

pytestmark = pytest.mark.host

LISTED = NetworkPolicy(egress=("api.example.com", "*.example.org"))
DARK = NetworkPolicy(allow_internet=False)


async def ask(machine: Machine, name: str, kind: str = "A", **more: object) -> list[str]:
    """Ask the gateway, from a thread: the node answers the resolver in this loop."""
    found = await asyncio.to_thread(lambda: machine.query(name=name, kind=kind, **more))
    return list(found)


async def answered(machine: Machine, name: str) -> list[str]:
    """Ask until the resolver is there and knows the rules."""
    async with asyncio.timeout(30):
        while True:
            found = await ask(machine, name)
            if found[0] not in {"refused", "silent", "SERVFAIL"}:
                return found
            await asyncio.sleep(0.05)


@pytest.fixture(name="zone")
def _zone(nameserver: NameServer) -> NameServer:
    nameserver.set("api.example.com", world.INTERNET)
    nameserver.set("other.example.com", world.ELSEWHERE)
    nameserver.set("example.org", world.ELSEWHERE)
    nameserver.set("a.b.example.org", world.ELSEWHERE, ttl=0)
    return nameserver


async def test_a_listed_name_opens_its_addresses(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Closed before it is asked for, open right after; its neighbours stay closed."""
    machine, neighbour = await stage.machine(LISTED), await stage.machine(LISTED)
    assert machine.reach(world.INTERNET) == "refused"
    assert await answered(machine, "api.example.com") == ["NOERROR", world.INTERNET]
    assert machine.reach(world.INTERNET) == "open"
    assert machine.datagram(host=world.INTERNET, port=443) == "open"
    assert machine.reach(world.ELSEWHERE) == "refused"
    assert neighbour.reach(world.INTERNET) == "refused"


async def test_other_names_are_refused_and_shown(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """A name that is not listed gets no answer, is not even asked for, and is in the log."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    for name in (
        "other.example.com",
        "secret-data.evil.example",
        "example.org",
        "xapi.example.com",
    ):
        assert await ask(machine, name) == ["REFUSED"]
    assert zone.count("secret-data.evil.example") == 0
    assert zone.count("other.example.com") == 0
    log = await stage.network.blocked(machine.name)
    names = {entry.name for entry in log.blocked if entry.protocol == "dns"}
    assert {"other.example.com", "secret-data.evil.example"} <= names


async def test_forms_of_a_name(stage: Stage, resolver: Resolver, zone: NameServer) -> None:
    """Case, a final dot, wildcards at any depth, TCP, and a time to live of zero."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    assert await ask(machine, "API.Example.COM.") == ["NOERROR", world.INTERNET]
    assert await ask(machine, "a.b.example.org") == ["NOERROR", world.ELSEWHERE]
    assert machine.reach(world.ELSEWHERE) == "open"
    assert await ask(machine, "api.example.com", tcp=True) == ["NOERROR", world.INTERNET]
    assert await ask(machine, "api.example.com", "AAAA") == ["NOERROR"]
    assert await ask(machine, "nothing.example.org") == ["NXDOMAIN"]


async def test_aliases_are_followed(stage: Stage, resolver: Resolver, zone: NameServer) -> None:
    """A listed name may be an alias, over several steps, of names that are not listed."""
    zone.set("www.example.org", "edge.cdn.example.", kind="CNAME")
    zone.set("edge.cdn.example", "pop.cdn.example.", kind="CNAME")
    zone.set("pop.cdn.example", world.INTERNET, world.ELSEWHERE)
    machine = await stage.machine(LISTED)
    answer = await answered(machine, "www.example.org")
    assert answer[0] == "NOERROR"
    assert {world.INTERNET, world.ELSEWHERE, "pop.cdn.example."} <= set(answer)
    assert machine.reach(world.INTERNET) == "open"
    assert machine.reach(world.ELSEWHERE) == "open"
    assert await ask(machine, "pop.cdn.example") == ["REFUSED"]


async def test_a_name_that_moves_into_the_house_opens_nothing(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Rebinding: metadata, the host, private nets, neighbours are never given out nor reached."""
    neighbour = await stage.machine(NetworkPolicy(ingress_ports=(80,)))
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    inside = (world.METADATA, "10.211.0.1", neighbour.ip, world.PRIVATE, "127.0.0.1", world.AZURE)
    for number, address in enumerate(inside):
        zone.set(f"rebind{number}.example.org", address, ttl=0)
        assert await ask(machine, f"rebind{number}.example.org") == ["REFUSED"]
        if address != "127.0.0.1":  # which is the machine itself
            assert machine.reach(address, deadline=0.2) != "open"
    zone.set("mixed.example.org", world.METADATA, world.ELSEWHERE, ttl=0)
    assert await ask(machine, "mixed.example.org") == ["NOERROR", world.ELSEWHERE]
    assert machine.reach(world.METADATA) == "refused"


async def test_there_is_no_way_around(stage: Stage, resolver: Resolver, zone: NameServer) -> None:
    """Other resolvers, fixed addresses, DNS over TLS or HTTPS, QUIC and ping stay closed."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    assert await ask(machine, "api.example.com", server=world.RESOLVER) == ["silent"]
    assert await ask(machine, "api.example.com", server=world.RESOLVER, tcp=True) == ["refused"]
    for port in (53, 80, 443, 853):
        assert machine.reach(world.ELSEWHERE, port) == "refused"
    assert machine.sent(world.ELSEWHERE, 443) == "unreachable"
    assert machine.ping(host=world.ELSEWHERE, deadline=0.3) != "open"


async def test_without_internet_names_resolve_and_connections_fail(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """`allow_internet: false`: every name has its address, and nothing is behind it."""
    machine = await stage.machine(DARK)
    assert await answered(machine, "other.example.com") == ["NOERROR", world.ELSEWHERE]
    assert machine.reach(world.ELSEWHERE, 443) == "refused"
    async with asyncio.timeout(10):
        while not (log := await stage.network.blocked(machine.name)).blocked:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (entry,) = log.blocked
    assert (entry.protocol, entry.destination, entry.port) == ("tcp", world.ELSEWHERE, 443)
    assert (entry.name, entry.reason) == ("other.example.com", "allow_internet is false")
    assert log.packets >= 1


async def test_a_name_taken_away_ends_its_connections_and_no_others(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Connections of names that stay go on, also over a sweep; the others end."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    await ask(machine, "a.b.example.org")
    assert machine.reach(world.INTERNET, hold="stays") == "open"
    assert machine.reach(world.ELSEWHERE, hold="goes") == "open"
    await stage.network.apply(machine.name, NetworkPolicy(egress=("api.example.com",)))
    assert machine.talk(name="stays") == "open"
    assert machine.talk(name="goes") != "open"
    assert await ask(machine, "a.b.example.org") == ["REFUSED"]
    await stage.network.sweep({})
    assert machine.talk(name="stays") == "open"
    assert machine.reach(world.INTERNET) == "open"


async def test_names_are_added_at_once(stage: Stage, resolver: Resolver, zone: NameServer) -> None:
    """When a change has returned, the resolver keeps to it."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    for _ in range(20):
        await stage.network.apply(machine.name, NetworkPolicy(egress=("other.example.com",)))
        assert await ask(machine, "other.example.com") == ["NOERROR", world.ELSEWHERE]
        assert machine.reach(world.ELSEWHERE) == "open"
        await stage.network.apply(machine.name, LISTED)
        assert await ask(machine, "other.example.com") == ["REFUSED"]
        assert machine.reach(world.ELSEWHERE) == "refused"


async def test_a_killed_resolver_leaves_all_closed_and_comes_back(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Without it no name is opened; what is open stays; a new one goes on at once."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    assert machine.reach(world.INTERNET, hold="kept") == "open"
    resolver.kill()
    assert await ask(machine, "a.b.example.org", tcp=True) == ["refused"]
    assert machine.reach(world.ELSEWHERE) == "refused"
    assert machine.talk(name="kept") == "open"
    resolver.start()
    assert await answered(machine, "a.b.example.org") == ["NOERROR", world.ELSEWHERE]
    assert machine.reach(world.ELSEWHERE) == "open"


async def test_hostile_questions_harm_nobody(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Broken, huge and many questions of one workspace: another is answered as before."""
    bad, good = await stage.machine(LISTED), await stage.machine(LISTED)
    await answered(good, "api.example.com")
    await asyncio.to_thread(lambda: bad.pour(host="10.211.0.1", port=53, count=20_000))
    for _ in range(20):
        assert await ask(good, "api.example.com") == ["NOERROR", world.INTERNET]
    assert resolver.process.poll() is None


async def test_truncated_answers_are_fetched_whole(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """A name with many addresses: asked again over TCP on both sides, and all of them open."""
    many = [f"203.0.113.{number}" for number in range(100, 160)] + [world.INTERNET]
    zone.set("many.example.org", *many)
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    answer = await ask(machine, "many.example.org", tcp=True)
    assert sorted(answer[1:]) == sorted(many)
    assert machine.reach(world.INTERNET) == "open"


async def test_a_lost_table_is_asked_for_anew(
    stage: Stage, resolver: Resolver, zone: NameServer
) -> None:
    """Someone emptied the firewall: after the sweep a name opens its addresses again, at once."""
    machine = await stage.machine(LISTED)
    await answered(machine, "api.example.com")
    world.run("nft", "delete", "table", "inet", world.TABLE)
    await stage.network.sweep({})
    assert machine.reach(world.INTERNET) == "refused"
    assert await ask(machine, "api.example.com") == ["NOERROR", world.INTERNET]
    assert machine.reach(world.INTERNET) == "open"
    await stage.network.apply(machine.name, NetworkPolicy())
    assert await ask(machine, "other.example.com") == ["NOERROR", world.ELSEWHERE]
