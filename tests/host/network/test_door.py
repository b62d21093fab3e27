"""What cannot leave a workspace: forged addresses, foreign frames, IPv6."""

from __future__ import annotations

import socket
import struct

import pytest

from bastide.domain.network import NetworkPolicy

from . import stage as world
from .stage import Machine, Stage

pytestmark = pytest.mark.host


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packet(source: str, destination: str, text: str, *, port: int = 80) -> bytes:
    """An IPv4 datagram, UDP checksum left out as the standard allows."""
    data = text.encode()
    udp = struct.pack("!HHHH", 4000, port, 8 + len(data), 0) + data
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        1,
        0,
        64,
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp


def _frame(machine: Machine, ethertype: bytes, payload: bytes) -> str:
    """A frame to the host's end, in hex. The two ends' addresses differ in the first byte."""
    mine = bytes.fromhex(str(machine.hardware()))
    return (b"\x06" + mine[1:] + mine + ethertype + payload).hex()


def _send(machine: Machine, packet: bytes) -> None:
    machine.frame(data=_frame(machine, b"\x08\x00", packet))


async def test_only_its_own_address_leaves(stage: Stage) -> None:
    """Packets with a neighbour's, the gateway's, an outsider's or no address go nowhere."""
    machine, neighbour = await stage.machine(), await stage.machine()
    forged = (neighbour.ip, "10.211.0.1", world.ELSEWHERE, world.HOST, "0.0.0.0", "10.211.9.9")
    for source in forged:
        _send(machine, _packet(source, world.INTERNET, f"forged {source}"))
    _send(machine, _packet(machine.ip, world.INTERNET, "honest 1"))
    assert stage.internet.wait_for(text="honest 1") == "open"
    assert stage.internet.wait_for(text="forged", deadline=0.2) == "silent"


async def test_a_forged_caller_is_not_let_in_by_a_link(stage: Stage) -> None:
    """A workspace cannot use a neighbour's link by taking the neighbour's address."""
    friend, thief = await stage.machine(), await stage.machine()
    target = await stage.machine(NetworkPolicy(links=(friend.ip,), ingress_ports=(80,)))
    _send(thief, _packet(friend.ip, target.ip, "stolen"))
    _send(friend, _packet(friend.ip, target.ip, "invited"))
    assert target.wait_for(text="invited") == "open"
    assert target.wait_for(text="stolen", deadline=0.2) == "silent"


async def test_a_forged_caller_from_outside_is_not_let_in(stage: Stage) -> None:
    """A packet from outside with a workspace's address does not use that workspace's link."""
    friend = await stage.machine()
    target = await stage.machine(
        NetworkPolicy(links=(friend.ip,), ingress=(world.ELSEWHERE,), ingress_ports=(80,))
    )
    host = bytes.fromhex(world.uplink_hardware())
    for source, text in ((friend.ip, "from outside"), (world.ELSEWHERE, "admitted")):
        packet = _packet(source, target.ip, text)
        stage.internet.frame(data=(host + host[:5] + b"\0" + b"\x08\x00" + packet).hex())
    assert target.wait_for(text="admitted") == "open"
    assert target.wait_for(text="from outside", deadline=0.2) == "silent"


async def test_the_gateway_is_all_that_answers_arp(stage: Stage) -> None:
    """No other address of the host, of the subnet or of anyone can be asked for."""
    machine, neighbour = await stage.machine(), await stage.machine()
    assert machine.arp(target="10.211.0.1") == "open"
    for target in (neighbour.ip, world.HOST, world.INTERNET, "10.211.9.9"):
        assert machine.arp(target=target, deadline=0.2) == "silent"


async def test_there_is_no_ipv6(stage: Stage) -> None:
    """No IPv6 address inside, none on the host's end, and IPv6 frames are dropped."""
    machine = await stage.machine()
    assert machine.read(path="/proc/net/if_inet6") == ""
    for name in ("all", "default", "eth0", "lo"):
        path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
        assert str(machine.read(path=path)).strip() == "1"
    assert world.host_ipv6() == []


async def test_other_frames_are_dropped(stage: Stage) -> None:
    """VLAN tags and fragments of other families bring nothing past the door."""
    machine = await stage.machine()
    forged = _packet(machine.ip, world.INTERNET, "tagged")
    machine.frame(data=_frame(machine, b"\x81\x00", b"\x00\x01\x08\x00" + forged))
    machine.frame(data=_frame(machine, b"\x88\xa8", b"\x00\x01\x08\x00" + forged))
    machine.frame(data=_frame(machine, b"\x86\xdd", b"\x60" + b"\0" * 39))
    _send(machine, _packet(machine.ip, world.INTERNET, "honest 2"))
    assert stage.internet.wait_for(text="honest 2") == "open"
    assert stage.internet.wait_for(text="tagged", deadline=0.2) == "silent"
