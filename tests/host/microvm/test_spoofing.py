"""A guest that owns its kernel makes what frames it likes: none of them gets it anything."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from pathlib import Path

import pytest
from tests.host.microvm.inside import ACCESS, POLICY, shell
from tests.host.node.conftest import opened_node, spec
from tests.host.node.waiting import until

from bastide.domain.machine import Driver
from bastide.node.machines.host import Host
from bastide.node.network.chains import QUESTIONS
from bastide.node.network.names import host_end

pytestmark = pytest.mark.host

ATTACKER = spec(1, network=POLICY, runtime=ACCESS, driver=Driver.MICROVM)
VICTIM = spec(2, network=POLICY, driver=Driver.CONTAINER)

# Sends each frame over a packet socket; then, the usual way, the one that may arrive.
FORGE = """
import json, socket, struct, sys
own, other, gateway, nobody = sys.argv[1:]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
mac = link.getsockname()[4]
host = bytes([6]) + mac[1:]
to = lambda address: socket.inet_aton(address)

def total(data):
    data += b"\\0" * (len(data) % 2)
    value = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    value = (value & 0xFFFF) + (value >> 16)
    return ~(value + (value >> 16)) & 0xFFFF

def packet(source, target, text, ports=(4000, 53)):
    udp = struct.pack("!HHHH", *ports, 8 + len(text), 0) + text
    ends = to(source) + to(target)
    head = struct.pack("!BBHHHBBH", 69, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    return head[:10] + struct.pack("!H", total(head)) + head[12:] + udp

def send(kind, payload, target=host, source=mac):
    link.send(target + source + kind + payload)

def arp(kind, sender, target):
    return struct.pack("!HHBBH", 1, 2048, 6, 4, kind) + mac + to(sender) + host + to(target)

ip, tag, six = b"\\x08\\x00", b"\\x81\\x00\\x00\\x05", b"\\x86\\xdd"
every, all_nodes = b"\\xff" * 6, b"\\x33\\x33\\0\\0\\0\\x01"
send(ip, packet(other, gateway, b"from another workspace"))
send(ip, packet(nobody, gateway, b"from nobody"))
send(ip, packet("127.0.0.1", gateway, b"from the host itself"))
send(ip, packet("0.0.0.0", gateway, b"from no address"))
send(tag + ip, packet(own, gateway, b"in a vlan"))
send(tag + tag + ip, packet(own, gateway, b"in two vlans"))
send(ip, packet(own, "255.255.255.255", b"an answer of dhcp", (67, 68)), every)
send(ip, packet(gateway, "255.255.255.255", b"an answer of dhcp", (67, 68)), every)
for number in range(200):
    send(b"\\x08\\x06", arp(1, "%s.%d" % (gateway.rpartition(".")[0], number % 250 + 2), gateway))
    send(b"\\x08\\x06", arp(1, "10.250.%d.%d" % (number % 7, number), gateway))
send(b"\\x08\\x06", arp(2, other, gateway))
send(b"\\x08\\x06", arp(2, gateway, gateway), every)
local = bytes.fromhex("fe80") + bytes(6) + bytes([2, 98, 0, 255, 254, 0, 0, 1])
nodes = bytes.fromhex("ff02") + bytes(13) + b"\\x01"
advert = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8)
pseudo = local + nodes + struct.pack("!II", len(advert), 58)
advert = advert[:2] + struct.pack("!H", total(pseudo + advert)) + advert[4:]
send(six, struct.pack("!IHBB", 6 << 28, len(advert), 58, 255) + local + nodes + advert, all_nodes)
datagram = struct.pack("!HHHH", 4000, 53, 16, 0) + b"by ipv6!"
send(six, struct.pack("!IHBB", 6 << 28, 16, 17, 64) + local + nodes + datagram, all_nodes)
link.send(every + mac + b"\\x88\\xb5" + b"what nobody knows")
send(ip, packet(other, gateway, b"with another mac"), host, mac[:5] + b"\\x99")
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
plain.sendto(b"honest", (gateway, 53))
"""


def neighbours(address: str) -> set[tuple[str, str]]:
    """Who the host knows on a workspace's link: address and hardware address."""
    listed = subprocess.run(
        ["ip", "-json", "neigh", "show", "dev", address],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return {(each["dst"], each.get("lladdr", "")) for each in json.loads(listed or "[]")}


def forget_questions(table: str) -> None:
    """Let the firewall forget who has asked for names."""
    subprocess.run(["nft", "flush", "set", "inet", table, QUESTIONS], check=True)


def addresses_of_ipv6() -> str:
    """What the host has of them; nothing on a host without."""
    known = Path("/proc/net/if_inet6")
    return known.read_text() if known.exists() else ""


async def test_frames_of_its_own_making_get_it_nothing(ground: Host) -> None:
    """Forged sources, VLANs, IPv6, ARP and DHCP: only the honest packet arrives, nobody learns."""
    heard: list[bytes] = []
    async with opened_node(ground) as node:
        for machine in (ATTACKER, VICTIM):
            await node.fleet.create(machine)
            await node.power.start(machine)
        place = ground.network.place(ATTACKER.id)
        gateway, own = str(place.gateway), str(place.address)
        other = str(ground.network.address(VICTIM.id))
        link, neighbour = host_end(place.address), host_end(ground.network.place(VICTIM.id).address)
        before = neighbours(link), neighbours(neighbour)
        ears = []
        for family, address, port in (
            (socket.AF_INET, gateway, 53),
            (socket.AF_INET, "0.0.0.0", 68),
            (socket.AF_INET6, "::", 53),
        ):
            ear = socket.socket(family, socket.SOCK_DGRAM)
            ear.setblocking(False)
            if family == socket.AF_INET6:
                ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ear.bind((address, port))
            ears.append(ear)
        try:
            program = base64.b64encode(FORGE.encode()).decode()
            nobody = str(place.gateway + 77)
            run = f'import base64,sys; exec(base64.b64decode("{program}"))'
            await shell(
                ground,
                ATTACKER,
                f"/.bastide/bin/python3.11 -I -S -c '{run}' {own} {other} {gateway} {nobody}",
            )

            def honest() -> bool:
                for ear in ears:
                    try:
                        while True:
                            heard.append(ear.recv(2048))
                    except BlockingIOError:
                        pass
                return b"honest" in heard

            await until(honest)
        finally:
            for ear in ears:
                ear.close()
            # that it asked is remembered for a minute, which is no leak
            forget_questions(ground.settings.network.table)
        assert heard == [b"honest"]
        assert (neighbours(link), neighbours(neighbour)) == before
        assert before[0] == {(own, place.mac)}
        assert link not in addresses_of_ipv6()
