"""What a workspace reaches over the network: tried from inside, with everything there to answer.

The host's other networks are namespaces of the tests, with the addresses of documentation and of
the metadata services of clouds: no packet of a failing test could leave this machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.inside import Inside
from tests.host.network import stage as world
from tests.host.network.stage import Guest

from bastide.client import Bastide
from bastide.domain.machine import CONTROL_PORT, RUNTIME_PORT

pytestmark = pytest.mark.cloud

APP = 8000
HOST_PORT = 18080
SERVE = f"import http.server; http.server.test(port={APP}, bind='0.0.0.0')"
METADATA_SPELLINGS = (
    "169.254.169.254",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "fd00:ec2::254",
    "fe80::a9fe:a9fe%eth0",
)


@pytest.fixture(scope="module")
def outside() -> Iterator[Guest]:
    """A small internet with metadata services and private networks, reached from the host."""
    with world.internet() as guest:
        yield guest


@pytest.fixture(scope="module")
def host() -> Iterator[Guest]:
    """A service of the host that listens on all its addresses."""
    guest = Guest()
    try:
        guest.serve(port=HOST_PORT)
        yield guest
    finally:
        guest.close()


def test_the_internet_is_there(inside: Inside, outside: Guest) -> None:
    """What is refused below is refused by policy: an ordinary address is reached."""
    ends = inside.call("connect", targets=[[world.INTERNET, 80], [world.ELSEWHERE, 443]])
    assert set(ends.values()) == {"open"}


def test_no_address_of_the_host_answers(
    inside: Inside, cloud: Cloud, outside: Guest, host: Guest
) -> None:
    """Gateway address and the host's other addresses: nothing on any port, nor the api's."""
    gateway = str(cloud.settings.network.subnet.network_address + 1)
    ports = [22, 80, 443, HOST_PORT, *(
        int(listen.rpartition(":")[2])
        for listen in (cloud.settings.listen.api, cloud.settings.listen.gateway)
    )]  # fmt: skip
    assert host.reach(world.HOST, HOST_PORT) == "open"
    assert host.reach(gateway, HOST_PORT) == "open"
    targets = [[address, port] for address in (gateway, world.HOST) for port in ports]
    for attempt in ("connect", "datagrams"):
        ends = inside.call(attempt, targets=targets)
        assert {target: end for target, end in ends.items() if end == "open"} == {}


def test_loopback_is_its_own(inside: Inside, cloud: Cloud, host: Guest) -> None:
    """127.0.0.1 is the machine's own: the api, the gateway and services of the host are absent."""
    assert host.reach("127.0.0.1", HOST_PORT) == "open"
    ports = [HOST_PORT, *(
        int(listen.rpartition(":")[2])
        for listen in (cloud.settings.listen.api, cloud.settings.listen.gateway)
    )]  # fmt: skip
    names = ("127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0", "::1", "::ffff:127.0.0.1")
    targets = [[name, port] for name in names for port in ports]
    ends = inside.call("connect", targets=targets)
    assert {target: end for target, end in ends.items() if end == "open"} == {}


def test_metadata_is_out_of_reach_in_every_spelling(
    inside: Inside, outside: Guest, host: Guest
) -> None:
    """Threat 10: the metadata services of clouds, however their address is written."""
    four = (world.METADATA, world.ALIBABA, world.AZURE, world.PRIVATE)
    for address in four:
        assert host.reach(address) == "open", "it is there"
    names = (*METADATA_SPELLINGS, *four)
    ends = inside.call("connect", targets=[[name, port] for name in names for port in (80, 443)])
    assert {target: end for target, end in ends.items() if end == "open"} == {}
    ends = inside.call("datagrams", targets=[[name, 53] for name in four])
    assert set(ends.values()) == {"silent"}


def test_neighbours_are_out_of_reach(inside: Inside, neighbour: Inside) -> None:
    """Control port, runtime port and an application of another workspace, open to the edge."""
    with neighbour.runtime.exec.stream(["python3", "-c", SERVE]) as events:
        next(iter(events))
        other = neighbour.address
        ready = f"import socket,time\nwhile socket.socket().connect_ex(('127.0.0.1',{APP})): time.sleep(.05)"  # noqa: E501
        neighbour.sh(f'python3 -c "{ready}"', timeout=20).check()
        ports = (CONTROL_PORT, RUNTIME_PORT, APP, 22, 80)
        ends = inside.call("connect", targets=[[other, port] for port in ports])
        assert set(ends.values()) <= {"refused", "silent", "unreachable"}
        ends = inside.call("datagrams", targets=[[other, port] for port in ports])
        assert set(ends.values()) == {"silent"}
        # Not even with an address beside its own, nor to a broadcast of all.
        base = other.rsplit(".", 1)[0]
        ends = inside.call("datagrams", targets=[[f"{base}.255", APP], ["224.0.0.1", APP]])
        assert set(ends.values()) == {"silent"}


def test_changing_its_own_link_gains_nothing(inside: Inside, neighbour: Inside) -> None:
    """Addresses, routes and link settings are not for the workspace to change."""
    for attempt in (
        f"ip addr add {neighbour.address}/32 dev eth0",
        f"ip route add {neighbour.address}/32 dev eth0",
        "ip link set eth0 down",
        "ip link add bridge0 type bridge",
        "ip neigh flush all",
        "ip rule add from all lookup 100",
    ):
        assert inside.sh(attempt).exit_code != 0, attempt
    assert inside.sh("true").exit_code == 0


def test_a_restarted_and_a_changed_workspace_are_as_closed(
    client: Bastide, inside: Inside, neighbour: Inside, outside: Guest
) -> None:
    """Threat 10: the same holds after a restart and after a change of policy."""
    targets = [[world.METADATA, 80], [world.PRIVATE, 80], [neighbour.address, RUNTIME_PORT]]
    client.workspaces.restart(inside.id)
    ends = inside.call("connect", targets=[*targets, [world.INTERNET, 80]])
    assert ends.pop(f"{world.INTERNET}:80") == "open"
    assert set(ends.values()) <= {"refused", "silent"}
    opened = {"ingress_ports": [80, APP, RUNTIME_PORT], "public_access": True}
    client.workspaces.update(inside.id, config={"network_config": opened})
    ends = inside.call("connect", targets=targets)
    assert set(ends.values()) <= {"refused", "silent"}
