"""Where a workspace is in the network, in its own words."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True)
class Place:
    """A workspace's one address, its gateway, the hardware address and the MTU of its link."""

    address: IPv4Address
    gateway: IPv4Address
    mac: str
    mtu: int
