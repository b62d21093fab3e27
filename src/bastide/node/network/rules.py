"""From a policy to elements of the firewall's sets: pure functions that touch nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from bastide.domain.network import NetworkPolicy
from bastide.node.network.admission import Admission, admit
from bastide.node.network.chains import (
    ANYWHERE,
    CALLED,
    CALLERS,
    COUNTING,
    DOORS,
    EDGE,
    LEAVE_AS,
    LINKED,
    ONLINE,
    OUT_PORTS,
    OWN,
    RANGED,
    RANGES,
    RESOLVED,
    SETS,
    SSH,
    TIMED,
    Plan,
    base_chains,
)
from bastide.node.network.names import host_end
from bastide.node.network.ruleset import Element, Part
from bastide.node.network.setelements import Change


def elements(address: IPv4Address, policy: NetworkPolicy, plan: Plan) -> frozenset[Element]:
    """A policy as the firewall holds it, but for what the resolver adds.

    Raises:
        Invalid: an entry of the policy is not allowed; `details["field"]` names its list.
    """
    admission = admit(policy, plan.subnet, plan.pool)
    pairs: list[tuple[str, Part | None]] = [
        *((DOORS, port) for port in admission.ports),
        *((LINKED, caller) for caller in admission.callers),
        *((f"{CALLERS}{source.prefixlen}", source) for source in admission.sources),
    ]
    if admission.sources:
        pairs.append((CALLED, None))
    if admission.edge:
        pairs += [(EDGE, port) for port in admission.ports]
    if admission.ssh:
        pairs.append((SSH, None))
    if admission.internet:
        pairs += _leaving(admission)
    found = {Element(OWN, (host_end(address), address))}
    for name, value in pairs:
        found.add(Element(name, (address,) if value is None else (address, value)))
    if admission.outbound is not None:
        found.add(Element(LEAVE_AS, (address,), admission.outbound))
    return frozenset(found)


def _leaving(admission: Admission) -> list[tuple[str, Part | None]]:
    """None stands for an element that is the workspace alone."""
    return [
        *((OUT_PORTS, port) for port in admission.destination_ports),
        *([] if admission.destination_ports else [(ONLINE, None)]),
        (ANYWHERE if admission.anywhere else RANGED, None),
        *(
            (f"{RANGES}{network.prefixlen}", network)
            for network in (() if admission.anywhere else admission.ranges)
        ),
    ]


def setup_commands(plan: Plan) -> list[str]:
    """One transaction that makes our table or brings its rules up to date.

    What workspaces have in it stays.
    """
    table = plan.table
    chains = base_chains(plan)
    return [
        f"add table inet {table}",
        *(
            f"add set inet {table} {name} {{ {kind}; }}"
            for name, kind in {**SETS, **TIMED, **COUNTING}.items()
        ),
        f"add map inet {table} {LEAVE_AS} {{ type ipv4_addr : ipv4_addr; }}",
        *(chain.declaration(table) for chain in chains),
        *(line for chain in chains for line in chain.content(table)),
    ]


def changes(before: frozenset[Element], after: frozenset[Element]) -> list[Change]:
    """From one state of a workspace to another; empty when they are the same.

    What goes comes first: ranges of one workspace must not overlap.
    """
    return [
        *(Change(element, add=False) for element in before - after),
        *(Change(element) for element in after - before),
    ]


def filling_commands(states: Iterable[frozenset[Element]], plan: Plan) -> list[str]:
    """Put many workspaces' elements into empty sets, as few commands as possible."""
    found: dict[str, list[str]] = {}
    for state in states:
        for element in state:
            found.setdefault(element.name, []).append(str(element))
    return [
        f"add element inet {plan.table} {name} {{ {', '.join(elements)} }}"
        for name, elements in found.items()
    ]


def resolved(workspace: IPv4Address, lifetimes: Mapping[IPv4Address, int]) -> list[Change]:
    """Let a workspace reach addresses for some seconds, from now, whatever was said before."""
    found = []
    for address, seconds in lifetimes.items():
        element = Element(RESOLVED, (workspace, address))
        # Older kernels keep the timeout of an element that is there: it is taken out and put in,
        # which no packet sees, as it is one transaction.
        found += [
            Change(element),
            Change(element, add=False),
            Change(element, seconds=seconds),
        ]
    return found


def forgotten(workspace: IPv4Address, addresses: Iterable[IPv4Address]) -> list[Change]:
    """End what was allowed by name with these addresses."""
    return [
        Change(Element(name, (workspace, address)), add=add)
        for address in addresses
        for name in TIMED
        for add in (True, False)  # removing what is absent is an error, adding it is not
    ]


def timed_commands(name: str, left: Mapping[tuple[str, str], int], plan: Plan) -> list[str]:
    """Put elements of a timed set back, with the seconds they had left."""
    found = [
        f"{workspace} . {address} timeout {max(1, seconds)}s"
        for (workspace, address), seconds in left.items()
    ]
    return [f"add element inet {plan.table} {name} {{ {', '.join(found)} }}"] if found else []


def teardown_commands(plan: Plan) -> list[str]:
    """One transaction that removes our table, there or not. No other table is touched."""
    return [f"add table inet {plan.table}", f"delete table inet {plan.table}"]
