"""Policies and packets that rules are judged by: any of them, or one as a test wants it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import strategies as st

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.network import chains
from bastide.node.network.names import host_end
from bastide.node.network.ruleset import Key
from bastide.settings import PRIVATE_RANGES

from .firewall import Packet

SUBNET = IPv4Network("10.211.0.0/16")
A, B = IPv4Address("10.211.0.2"), IPv4Address("10.211.3.7")
RESOLVER = IPv4Address("10.99.0.53")
GATEWAY = IPv4Address("10.211.0.1")
API, EDGE, BASTION, ROOT, OTHER = 990, 991, 992, 0, 1000
PLAN = chains.Plan("t", SUBNET, control_users=(ROOT, API), edge_user=EDGE)
OPENED = replace(PLAN, allow_private=PRIVATE_RANGES)
PUBLIC = IPv4Address("203.0.113.9")

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
inside = st.integers(2, 2**16 - 2).map(lambda offset: SUBNET.network_address + offset)
ranges = st.one_of(
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", str(SUBNET), "169.254.169.254", "127.0.0.0/8"]),
    inside.map(str),
    st.builds(
        lambda address, length: str(IPv4Network((int(address), length), strict=False)),
        addresses,
        st.integers(0, 32),
    ),
)
ports = st.integers(1, 65535)
open_ports = st.one_of(st.sampled_from([80, 443, 9990, 22]), ports).filter(
    lambda port: port != CONTROL_PORT
)


def policies(links: st.SearchStrategy[IPv4Address] = inside) -> st.SearchStrategy[NetworkPolicy]:
    def some(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
        return st.lists(of, max_size=5).map(tuple)

    return st.builds(
        NetworkPolicy,
        allow_internet=st.booleans(),
        public_access=st.booleans(),
        ingress=some(ranges),
        ingress_ports=some(open_ports),
        egress=some(ranges),
        egress_ports=some(ports),
        links=some(links.map(str)),
    )


# Most draws are the ordinary case, or a property would mostly judge what is dropped anyway.
protocols = st.sampled_from(["tcp", "tcp", "tcp", "udp", "icmp", "sctp"])
states = st.sampled_from(["new", "new", "established", "established", "related", "invalid"])
directions = st.sampled_from(["original", "reply"])
services = st.one_of(st.sampled_from([22, 53, 80, 443, CONTROL_PORT, 9990]), ports)


@st.composite
def conversations(
    draw: st.DrawFn,
    initiator: IPv4Address | st.SearchStrategy[IPv4Address],
    responder: IPv4Address | st.SearchStrategy[IPv4Address],
) -> Packet:
    """Any forwarded packet of a connection between the two, in either direction."""
    begins = initiator if isinstance(initiator, IPv4Address) else draw(initiator)
    answers = responder if isinstance(responder, IPv4Address) else draw(responder)
    direction = draw(directions)
    source, destination = (begins, answers) if direction == "original" else (answers, begins)
    return packet_of(
        source,
        destination,
        begins,
        answers,
        direction=direction,
        state=draw(states),
        protocol=draw(protocols),
        service=draw(services),
        icmp=draw(st.sampled_from(["echo-request", "destination-unreachable", "redirect"])),
    )


def packet_of(
    source: IPv4Address,
    destination: IPv4Address,
    initiator: IPv4Address,
    responder: IPv4Address,
    *,
    direction: str = "original",
    state: str = "new",
    protocol: str = "tcp",
    service: int = 80,
    icmp: str | None = None,
    **extra: int | str,
) -> Packet:
    """One packet of a connection, the first of a TCP one unless said otherwise."""
    packet: dict[Key, int | str | IPv4Address] = {
        Key.SOURCE: source,
        Key.DESTINATION: destination,
        Key.IN: host_end(source) if source in SUBNET else "eth0",
        Key.OUT: host_end(destination) if destination in SUBNET else "eth0",
        Key.STATE: state,
        Key.PROTOCOL: protocol,
        Key.DIRECTION: direction,
        Key.INITIATOR: initiator,
        Key.RESPONDER: responder,
        Key.SERVICE: service,
    }
    if protocol == "icmp" and icmp:
        packet[Key.ICMP] = icmp
    if state in {"untracked", "invalid"}:
        for key in (Key.DIRECTION, Key.INITIATOR, Key.RESPONDER, Key.SERVICE):
            del packet[key]
    for name, value in extra.items():
        packet[Key[name.upper()]] = value
    return packet


def begin(
    source: IPv4Address, destination: IPv4Address, service: int = 80, **fields: Any
) -> Packet:
    """The first packet of a connection, TCP unless `fields` say otherwise."""
    return packet_of(source, destination, source, destination, service=service, **fields)
