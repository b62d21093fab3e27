"""Address ranges a workspace may not reach, whatever its policy.

`NEVER` is what no packet of a workspace may be sent to at all. Closed too are `METADATA`, services
of cloud providers outside `NEVER`, and the private ranges of the settings, of which
`network.allow_private` opens parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from bastide.settings import PRIVATE_RANGES

NEVER = (
    IPv4Network("0.0.0.0/8"),  # "this host"
    IPv4Network("127.0.0.0/8"),  # loopback
    IPv4Network("169.254.0.0/16"),  # link-local, where clouds keep their metadata services
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, and the broadcast address
)

METADATA = (
    IPv4Network("100.100.100.200/32"),  # Alibaba Cloud
    IPv4Network("168.63.129.16/32"),  # Azure's host service; also its resolver
    IPv4Network("192.0.0.0/24"),  # protocol assignments; 192.0.0.192 is Oracle Cloud's
)


def subtract(
    networks: Iterable[IPv4Network], removed: Iterable[IPv4Network]
) -> tuple[IPv4Network, ...]:
    """The networks without the removed ranges, as few disjoint networks as possible, in order."""
    left = list(networks)
    for hole in removed:
        kept: list[IPv4Network] = []
        for network in left:
            if network.subnet_of(hole):
                continue
            if hole.subnet_of(network):
                kept.extend(network.address_exclude(hole))
            else:
                kept.append(network)
        left = kept
    return tuple(collapse_addresses(left))


def closed(allow_private: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The private and metadata ranges that stay closed with these exceptions."""
    return tuple(collapse_addresses([*subtract(PRIVATE_RANGES, allow_private), *METADATA]))
