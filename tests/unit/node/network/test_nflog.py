"""Reading packets from the kernel's log."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from bastide.node.network.nflog import Seen, head_of, packets

SOURCE, DESTINATION = IPv4Address("10.211.0.2"), IPv4Address("203.0.113.7")


def packet(number: int, *, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, fragment, 64, number, 0)
    return head + SOURCE.packed + DESTINATION.packed + struct.pack("!HHHH", 4000, 443, 8, 0)


def message(payload: bytes) -> bytes:
    attribute = struct.pack("=HH", 4 + len(payload), 9) + payload + b"\0" * (-len(payload) % 4)
    body = struct.pack("!BBH", 2, 0, 7) + attribute
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


def test_heads_of_packets() -> None:
    """Protocol and port, where there are ports."""
    assert head_of(packet(6)) == Seen(SOURCE, DESTINATION, "tcp", 443)
    assert head_of(packet(17)) == Seen(SOURCE, DESTINATION, "udp", 443)
    assert head_of(packet(1)) == Seen(SOURCE, DESTINATION, "icmp", None)
    assert head_of(packet(132)) == Seen(SOURCE, DESTINATION, "132", None)
    later_fragment = head_of(packet(17, fragment=10))
    assert later_fragment is not None
    assert later_fragment.port is None


def test_several_messages_are_read() -> None:
    """One buffer may hold many."""
    data = message(packet(6)) + message(packet(17))
    assert [seen.protocol for seen in packets(data)] == ["tcp", "udp"]


@given(st.binary(max_size=200))
def test_nothing_that_comes_breaks_it(data: bytes) -> None:
    """Whatever bytes: packets or none."""
    list(packets(data))
    list(packets(message(data)))
    head_of(data)
