"""The link of a workspace: a veth pair or a tap, its addresses, routes and kernel settings.

The host's end carries the gateway address and the route to the workspace's one address; the
workspace's end is `eth0` in its own namespace, or in its own kernel (`tap`). There is no shared
layer 2. All calls block for a few milliseconds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bastide.node.errors import Conflict, NotReady
from bastide.node.network import tap
from bastide.node.network.names import PREFIX, address_of, host_end
from bastide.node.network.namespace import network_of, run_inside

INNER = "eth0"
ROUTE_PROTOCOL = 98  # marks the routes that are ours; unassigned in rtnetlink's list
_LAST_RESORT = 0x7FFFFFFF  # metric of the unreachable route
_ONLINK = 4  # RTNH_F_ONLINK: the gateway is on this link although no route says so
_NO_DEVICE = 19  # ENODEV
_NO_ROUTE = 3  # ESRCH
_SYS_NET = Path("/sys/class/net")
_SYSCTL = Path("/proc/sys/net")

_HOST_END = {
    "ipv4/conf/{}/rp_filter": "1",  # strict: nothing from an address routed elsewhere
    "ipv4/conf/{}/arp_ignore": "1",  # answer for the gateway's address only
    "ipv4/conf/{}/arp_announce": "2",
    "ipv4/conf/{}/proxy_arp": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/accept_source_route": "0",
    "ipv4/conf/{}/route_localnet": "0",
    "ipv4/conf/{}/forwarding": "1",
    "ipv6/conf/{}/disable_ipv6": "1",
}
_INSIDE = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/ping_group_range": "0 2147483647",  # ping without a privilege
}


@dataclass(frozen=True)
class Owner:
    """Whose a link is: the mark on its host end, by which it is known again."""

    table: str
    machine: str

    def __str__(self) -> str:
        return f"{self.table}/{self.machine}"


@dataclass(frozen=True)
class Link:
    """A host end that exists, the workspace's address, and the machine it is for."""

    name: str
    address: IPv4Address
    machine: str


def create(
    owner: Owner, address: IPv4Address, gateway: IPv4Address, pid: int, *, mtu: int = 1500
) -> None:
    """Link the namespace of `pid` to the host; an older link of that address is replaced.

    The caller has the firewall's rules in place before, so the link is never up without them.

    Raises:
        Conflict: the process is gone or has no namespace of its own.
        NotReady: the kernel refused a step; nothing is left of the link.
    """
    name = host_end(address)
    with network_of(pid) as namespace, netlink_socket(f"link of {owner.machine}") as netlink:
        _delete(netlink, name)
        try:
            netlink.link(
                "add",
                ifname=name,
                kind="veth",
                mtu=mtu,
                address=_mac("06", address),
                peer={
                    "ifname": INNER,
                    "net_ns_fd": namespace,
                    "mtu": mtu,
                    "address": inner_mac(address),
                },
            )
            _raise_host_end(netlink, name, gateway)
            run_inside(namespace, lambda: _configure_inside(address, gateway))
            _finish_host_end(netlink, name, owner, address, gateway)
        except BaseException:
            _delete(netlink, name)
            raise


def create_tap(
    owner: Owner, address: IPv4Address, gateway: IPv4Address, descriptor: int, *, mtu: int = 1500
) -> None:
    """Make the same host end over a tap, whose other end is `descriptor` (`tap.opened`).

    The machine is told its own address, route and hardware address (`inner_mac`) by other means.

    Raises:
        NotReady: the kernel refused a step; nothing is left of the link.
    """
    name = host_end(address)
    with netlink_socket(f"link of {owner.machine}") as netlink:
        _delete(netlink, name)
        try:
            tap.fill(descriptor, address)
            index = socket.if_nametoindex(name)
            netlink.link("set", index=index, mtu=mtu, address=_mac("06", address))
            _raise_host_end(netlink, name, gateway)
            _finish_host_end(netlink, name, owner, address, gateway)
        except BaseException:
            _delete(netlink, name)
            raise


def _raise_host_end(netlink: Any, name: str, gateway: IPv4Address) -> None:
    _write(_HOST_END, name)
    index = socket.if_nametoindex(name)
    netlink.addr("add", index=index, address=str(gateway), prefixlen=32)
    netlink.link("set", index=index, state="up")


def _finish_host_end(
    netlink: Any, name: str, owner: Owner, address: IPv4Address, gateway: IPv4Address
) -> None:
    index = socket.if_nametoindex(name)
    # The end that came up first drops packets until the kernel has noticed that it has
    # a carrier, which it does in its own time, or when it is asked.
    (_SYS_NET / name / "carrier").read_text()
    # Permanent: not counted against the neighbour table, which is small.
    netlink.neigh("add", dst=str(address), lladdr=inner_mac(address), ifindex=index, state=0x80)
    netlink.route(
        "replace",
        dst=f"{address}/32",
        oif=index,
        prefsrc=str(gateway),
        scope="link",
        proto=ROUTE_PROTOCOL,
    )
    # The mark comes last: without it the link is unfinished, and swept.
    netlink.link("set", index=index, ifalias=str(owner))


def delete(address: IPv4Address) -> bool:
    """Remove the link of an address with its routes; False if there was none."""
    with netlink_socket(f"link of {address}") as netlink:
        return _delete(netlink, host_end(address))


def exists(address: IPv4Address) -> bool:
    """Whether the host's end is there."""
    return (_SYS_NET / host_end(address)).exists()


def links(table: str, subnet: IPv4Network) -> list[Link]:
    """The host ends made for `table`, in whatever subnet it had then.

    An end in `subnet` without a mark is a creation that was cut short: its machine is empty.
    """
    found = []
    mark = str(Owner(table, ""))
    for path in _SYS_NET.glob(f"{PREFIX}*"):
        address = address_of(path.name)
        if address is None:
            continue
        with suppress(OSError):  # it may go while we look
            alias = (path / "ifalias").read_text().strip()
            if alias.startswith(mark):
                found.append(Link(path.name, address, alias.removeprefix(mark)))
            elif not alias and address in subnet:
                found.append(Link(path.name, address, ""))
    return found


def counters(address: IPv4Address) -> tuple[int, int]:
    """Bytes into and out of the workspace; zeros without a link."""
    statistics = _SYS_NET / host_end(address) / "statistics"
    try:
        # What the host's end sends is what the workspace gets.
        return (
            int((statistics / "tx_bytes").read_text()),
            int((statistics / "rx_bytes").read_text()),
        )
    except OSError:
        return (0, 0)


def prepare_host(subnet: IPv4Network) -> None:
    """Let the host forward, and make every unused address of the subnet unreachable.

    Raises:
        Conflict: the subnet, or a part of it, is already used for something else here.
        NotReady: the kernel refused.
    """
    with netlink_socket("the subnet's route") as netlink:
        _refuse_overlap(netlink, subnet)
        _write({"ipv4/{}": "1"}, "ip_forward")
        netlink.route("replace", **_unreachable(subnet))


def uplink_mtu() -> int:
    """The MTU of the way out, so that large packets need no discovery; 1500 without one."""
    with netlink_socket("a look at the routes") as netlink:
        for route in netlink.get_default_routes(family=2):
            index = route.get_attr("RTA_OIF")
            if index:
                return int((_SYS_NET / socket.if_indextoname(index) / "mtu").read_text())
    return 1500


def restore_host(subnet: IPv4Network) -> None:
    """Remove the subnet's route. Forwarding stays as it is: others may rely on it by now."""
    with netlink_socket("the subnet's route") as netlink:
        try:
            netlink.route("del", **_unreachable(subnet))
        except NetlinkError as error:
            if error.code != _NO_ROUTE:
                raise


def _configure_inside(address: IPv4Address, gateway: IPv4Address) -> None:
    _write(_INSIDE, "")
    with netlink_socket("the workspace's end") as netlink:
        index = socket.if_nametoindex(INNER)
        netlink.link("set", index=1, state="up")
        netlink.addr("add", index=index, address=str(address), prefixlen=32)
        netlink.link("set", index=index, state="up")
        netlink.route("add", dst="default", gateway=str(gateway), oif=index, flags=_ONLINK)


def _refuse_overlap(netlink: Any, subnet: IPv4Network) -> None:
    for route in netlink.get_routes(family=2):
        destination = route.get_attr("RTA_DST")
        if destination is None or route["proto"] == ROUTE_PROTOCOL:
            continue
        network = IPv4Network(f"{destination}/{route['dst_len']}", strict=False)
        if not network.subnet_of(subnet):
            continue
        index = route.get_attr("RTA_OIF")
        device = socket.if_indextoname(index) if index else ""
        if address_of(device) is None:
            raise Conflict(
                f"network.subnet {subnet} is in use on this host: {network} is routed to "
                f"{device or 'a table of its own'}; choose another private range"
            )


def _unreachable(subnet: IPv4Network) -> dict[str, Any]:
    return {
        "type": "unreachable",
        "dst": str(subnet),
        "priority": _LAST_RESORT,
        "proto": ROUTE_PROTOCOL,
    }


def _delete(netlink: Any, name: str) -> bool:
    if not (_SYS_NET / name).exists():
        return False
    try:
        netlink.link("del", ifname=name)
    except NetlinkError as error:
        if error.code != _NO_DEVICE:
            raise
        return False
    return True


@contextmanager
def netlink_socket(what: str) -> Iterator[Any]:
    """A netlink socket of the calling thread's namespace; its refusals become `NotReady`."""
    try:
        with IPRoute() as netlink:
            yield netlink
    except (NetlinkError, OSError) as error:
        raise NotReady(f"the kernel refused {what}: {error}") from error


def _write(values: dict[str, str], name: str) -> None:
    for path, value in values.items():
        file = _SYSCTL / path.format(name)
        # A kernel without IPv6 has no such files, and nothing to switch off.
        with suppress(FileNotFoundError):
            file.write_text(value)


def inner_mac(address: IPv4Address) -> str:
    """The hardware address of the workspace's end."""
    return _mac("02", address)


def _mac(first: str, address: IPv4Address) -> str:
    """A locally administered address that tells which workspace it belongs to."""
    return ":".join([first, "62", *(f"{octet:02x}" for octet in address.packed)])
