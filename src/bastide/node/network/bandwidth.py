"""How fast a workspace may send and receive: token buckets on the host's side of its link.

What it receives waits at the host's end of the link; what it sends is led through a device of its
own (an `ifb`) and waits there. Nothing of this is inside the workspace, where it could be avoided.
All calls block for a few milliseconds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from bastide.node.network.link import netlink_socket
from bastide.node.network.names import host_end, suffix

PREFIX = "bi"
_SYS_NET = Path("/sys/class/net")
_ROOT = 0xFFFFFFFF
_TBF = 0x10000
_INGRESS, _INGRESS_PARENT = 0xFFFF0000, 0xFFFFFFF1
_BURST_SECONDS, _LEAST_BURST = 0.01, 64 * 1024
_WAIT = "100ms"
_EVERYTHING = 0x0003  # ETH_P_ALL
_GONE = (2, 19, 22)  # ENOENT, ENODEV, EINVAL: there was none


def limit(address: IPv4Address, mbps: float | None) -> None:
    """Limit a linked workspace to that many megabits a second in each direction; None: lift it.

    Raises:
        NotReady: the kernel refused.
    """
    with netlink_socket(f"the bandwidth of {address}") as netlink:
        inner = _aside(address)
        if mbps is None:
            if (_SYS_NET / inner).exists():
                _lift(netlink, address)
            return
        outer_index = socket.if_nametoindex(host_end(address))
        if not (_SYS_NET / inner).exists():
            netlink.link("add", ifname=inner, kind="ifb")
        inner_index = socket.if_nametoindex(inner)
        netlink.link("set", index=inner_index, state="up")
        for index in (outer_index, inner_index):
            netlink.tc("replace", "tbf", index, _TBF, parent=_ROOT, **_bucket(mbps))
        with suppress(NetlinkError):  # it is there
            netlink.tc("add", "ingress", outer_index, _INGRESS)
        netlink.tc(
            "replace-filter",
            "u32",
            outer_index,
            0x80000800,
            parent=_INGRESS,
            prio=1,
            protocol=_EVERYTHING,
            target=0x10000,
            keys=["0x0/0x0+0"],
            action={
                "kind": "mirred",
                "direction": "egress",
                "action": "redirect",
                "ifindex": inner_index,
            },
        )


def remove(address: IPv4Address) -> None:
    """Remove what a link that is gone has left."""
    _delete(_aside(address))


def sweep(linked: Iterable[IPv4Address], subnet_prefixes: tuple[str, ...]) -> None:
    """Remove the devices of no linked workspace; prefixes are the hexadecimal ones of ours."""
    wanted = {_aside(address) for address in linked}
    for path in _SYS_NET.glob(f"{PREFIX}*"):
        ours = path.name.removeprefix(PREFIX).startswith(subnet_prefixes)
        if ours and path.name not in wanted:
            _delete(path.name)


def _lift(netlink: Any, address: IPv4Address) -> None:
    if (_SYS_NET / host_end(address)).exists():
        index = socket.if_nametoindex(host_end(address))
        for handle, parent in ((_TBF, _ROOT), (_INGRESS, _INGRESS_PARENT)):
            try:
                netlink.tc("del", index=index, handle=handle, parent=parent)
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise
    _delete(_aside(address))


def _delete(name: str) -> None:
    if not (_SYS_NET / name).exists():
        return
    with netlink_socket(f"the device {name}") as netlink:
        try:
            netlink.link("del", ifname=name)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise


def _bucket(mbps: float) -> dict[str, Any]:
    bits = int(mbps * 1_000_000)
    burst = max(_LEAST_BURST, int(bits / 8 * _BURST_SECONDS))
    return {"rate": f"{bits}bit", "burst": burst, "latency": _WAIT}


def _aside(address: IPv4Address) -> str:
    """The device that packets from the workspace wait at."""
    return PREFIX + suffix(address)
