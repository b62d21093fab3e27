"""What a policy admits, in addresses and ports that rules can be made of."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from bastide.domain.egress import Destinations, Names, destinations, range_of
from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.errors import Invalid
from bastide.node.network.ranges import subtract


@dataclass(frozen=True)
class Admission:
    """A checked policy.

    `sources`, `callers` (workspaces) and `ports` are who may begin a connection with the
    workspace and where; `edge` admits the edge's user of this host, `ssh` the bastion's at
    the SSH port. `internet` says whether it may begin connections with the outside, `anywhere`
    whether to all of it; if not, `ranges` and the addresses of `names` are where to. No
    `destination_ports` are no restriction.
    """

    sources: tuple[IPv4Network, ...]
    callers: tuple[IPv4Address, ...]
    ports: tuple[int, ...]
    edge: bool
    ssh: bool
    internet: bool
    anywhere: bool
    ranges: tuple[IPv4Network, ...]
    names: Names
    destination_ports: tuple[int, ...]
    outbound: IPv4Address | None

    @property
    def open(self) -> bool:
        """Whether nothing narrows what it may reach of the outside."""
        return self.internet and self.anywhere and not self.destination_ports


def admit(
    policy: NetworkPolicy, subnet: IPv4Network, pool: tuple[IPv4Address, ...] = ()
) -> Admission:
    """Check a policy and say what it admits.

    Addresses of workspaces are admitted by `links` alone: whatever `ingress` says of `subnet`
    is taken out.

    Raises:
        Invalid: an entry is not allowed; `details["field"]` names its list.
    """
    ingress = [_range("ingress", entry) for entry in policy.ingress]
    egress = _destinations(policy.egress)
    ports = _ports("ingress_ports", policy.ingress_ports)
    if CONTROL_PORT in ports:
        raise Invalid(
            f"ingress_ports: {CONTROL_PORT} is the control plane's and cannot be opened",
            field="ingress_ports",
        )
    return Admission(
        sources=tuple(collapse_addresses(subtract(ingress, [subnet]))),
        callers=tuple(sorted({_caller(entry, subnet) for entry in policy.links})),
        ports=ports,
        edge=policy.public_access,
        ssh=policy.ssh,
        internet=policy.allow_internet,
        anywhere=egress.everything,
        ranges=tuple(collapse_addresses(egress.ranges)),
        names=Names() if egress.everything or not policy.allow_internet else egress.names,
        destination_ports=_ports("egress_ports", policy.egress_ports),
        outbound=_outbound(policy.outbound_ip, pool),
    )


def _range(field: str, entry: str) -> IPv4Network:
    try:
        return range_of(entry)
    except ValueError as error:
        raise Invalid(f"{field}: {error}", field=field) from None


def _destinations(entries: tuple[str, ...]) -> Destinations:
    try:
        return destinations(entries)
    except ValueError as error:
        raise Invalid(f"egress: {error}", field="egress") from None


def _caller(entry: str, subnet: IPv4Network) -> IPv4Address:
    try:
        address = IPv4Address(entry)
    except ValueError:
        address = IPv4Address(0)
    if address not in subnet or address == subnet.network_address + 1:
        raise Invalid(f"links: {entry[:100]!r} is no address of a workspace", field="links")
    return address


def _outbound(entry: str | None, pool: tuple[IPv4Address, ...]) -> IPv4Address | None:
    if entry is None:
        return None
    found = next((address for address in pool if str(address) == entry), None)
    if found is None:
        raise Invalid(
            f"outbound_ip: {entry!r} is not in network.outbound_pool of this server",
            field="outbound_ip",
        )
    return found


def _ports(field: str, ports: tuple[int, ...]) -> tuple[int, ...]:
    for port in ports:
        if not 1 <= port <= 65535:
            raise Invalid(f"{field}: {port} is no port; ports are 1 to 65535", field=field)
    return tuple(sorted(set(ports)))
