"""What a policy admits, in addresses and ports that rules can be made of."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.errors import Invalid
from bastide.node.network.ranges import EVERYWHERE, subtract


@dataclass(frozen=True)
class Admission:
    """A checked policy.

    `sources` and `ports` are who may begin a connection with the workspace and where; `edge`
    admits the edge's user of this host. `internet` says whether it may begin connections with
    the outside; empty `destinations` or `destination_ports` are no restriction.
    """

    sources: tuple[IPv4Network, ...]
    ports: tuple[int, ...]
    edge: bool
    internet: bool
    destinations: tuple[IPv4Network, ...]
    destination_ports: tuple[int, ...]


def admit(policy: NetworkPolicy, subnet: IPv4Network) -> Admission:
    """Check a policy and say what it admits.

    Addresses of workspaces are admitted by `links` alone: whatever `ingress` says of `subnet`
    is taken out.

    Raises:
        Invalid: an entry is not allowed; `details["field"]` names its list.
    """
    ingress = [_network("ingress", entry) for entry in policy.ingress]
    links = [_caller(entry, subnet) for entry in policy.links]
    egress = [_network("egress", entry) for entry in policy.egress]
    ports = _ports("ingress_ports", policy.ingress_ports)
    if CONTROL_PORT in ports:
        raise Invalid(
            f"ingress_ports: {CONTROL_PORT} is the control plane's and cannot be opened",
            field="ingress_ports",
        )
    return Admission(
        sources=tuple(collapse_addresses([*subtract(ingress, [subnet]), *links])),
        ports=ports,
        edge=policy.public_access,
        internet=policy.allow_internet,
        destinations=() if EVERYWHERE in egress else tuple(collapse_addresses(egress)),
        destination_ports=_ports("egress_ports", policy.egress_ports),
    )


def _network(field: str, entry: str) -> IPv4Network:
    try:
        return IPv4Network(entry)
    except ValueError:
        raise Invalid(
            f"{field}: {entry[:100]!r} is no IPv4 address or range such as 203.0.113.7 or "
            "203.0.113.0/24; host names and IPv6 are not supported here",
            field=field,
        ) from None


def _caller(entry: str, subnet: IPv4Network) -> IPv4Network:
    try:
        address = IPv4Address(entry)
    except ValueError:
        address = IPv4Address(0)
    if address not in subnet or address == subnet.network_address + 1:
        raise Invalid(f"links: {entry[:100]!r} is no address of a workspace", field="links")
    return IPv4Network(address)


def _ports(field: str, ports: tuple[int, ...]) -> tuple[int, ...]:
    for port in ports:
        if not 1 <= port <= 65535:
            raise Invalid(f"{field}: {port} is no port; ports are 1 to 65535", field=field)
    return tuple(sorted(set(ports)))
