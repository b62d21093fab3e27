"""From a policy to firewall rules: pure functions, nothing here touches the host.

How a packet is judged. Every packet, in either direction of a connection, is judged by the
connection's two ends as conntrack keeps them: who began it and who answers, at which port.
"Established" is never a reason to let a packet pass. So a connection lives exactly as long as
the policy admits it, a change of policy ends it in both directions at its next packet, and no
conntrack entry need be found and deleted (which would race with new packets, and would let a
stream be picked up again in the middle). It costs two or three hash lookups per packet.

Per workspace there are three chains, found through verdict maps by address: what it may begin
(`out_`), what others may begin with it (`in_`), and what the host's processes may begin with it
(`host_`). The base chains are the same for all.

Sources: spec control-plane 4.4 and 5.5, architecture section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.network.admission import Admission, admit
from bastide.node.network.names import host_end, suffix, wildcards
from bastide.node.network.ranges import NEVER, closed
from bastide.node.network.ruleset import (
    Chain,
    Crowded,
    Dispatch,
    Jump,
    Key,
    Match,
    Member,
    Rule,
    Verdict,
    match,
    rule,
)

OWN = "own"  # set: host end . address, what a workspace may call itself
CONNECTIONS = "connections"  # dynamic set that counts connections per workspace
INBOUND, OUTBOUND, FROM_HOST = "inbound", "outbound", "from_host"  # verdict maps by address
MAPS = {INBOUND: "in", OUTBOUND: "out", FROM_HOST: "host"}

_TRANSPORT = match(Key.PROTOCOL, "tcp", "udp")
_ERRORS = match(Key.ICMP, "destination-unreachable", "time-exceeded", "parameter-problem")


@dataclass(frozen=True)
class Plan:
    """What the rules of one host are made from. Users are numeric ids."""

    table: str
    subnet: IPv4Network
    nameservers: tuple[IPv4Address, ...] = ()
    allow_private: tuple[IPv4Network, ...] = ()
    connections: int = 4096
    control_users: tuple[int, ...] = (0,)
    edge_user: int | None = None


def base_chains(plan: Plan) -> tuple[Chain, ...]:
    """The chains every packet from or to a workspace walks; those with a hook come last."""
    ours = wildcards(plan.subnet)
    arriving = [match(Key.IN, name) for name in ours]
    leaving = [match(Key.OUT, name) for name in ours]
    return (
        _sender(),
        _party(),
        _refuse(arriving),
        _anywhere(),
        _relay(plan, arriving),
        _visitor(),
        _caller(plan),
        Chain(
            "prerouting",
            (
                *(rule(Jump("sender"), ours) for ours in arriving),
                rule(Verdict.ACCEPT, match(Key.IN, "lo")),
                # Nobody else speaks for a workspace.
                rule(Verdict.DROP, match(Key.SOURCE, plan.subnet)),
            ),
            hook="type filter hook prerouting priority raw",
        ),
        Chain(
            "input",
            tuple(rule(Jump("visitor"), ours) for ours in arriving),
            hook="type filter hook input priority filter",
        ),
        Chain(
            "forward",
            tuple(rule(Jump("relay"), ours) for ours in (*arriving, *leaving)),
            hook="type filter hook forward priority filter",
        ),
        Chain(
            "output",
            tuple(rule(Jump("caller"), ours) for ours in leaving),
            hook="type filter hook output priority filter",
        ),
        Chain(
            "postrouting",
            (
                rule(
                    Verdict.MASQUERADE,
                    match(Key.SOURCE, plan.subnet),
                    Match((Key.DESTINATION,), (plan.subnet,), negate=True),
                ),
            ),
            hook="type nat hook postrouting priority srcnat",
        ),
    )


def workspace_chains(address: IPv4Address, policy: NetworkPolicy, plan: Plan) -> tuple[Chain, ...]:
    """The chains of one workspace.

    Raises:
        Invalid: an entry of the policy is not allowed; `details["field"]` names its list.
    """
    admission = admit(policy, plan.subnet)
    name = suffix(address)
    return (
        Chain(f"in_{name}", tuple(_inbound(admission))),
        Chain(f"out_{name}", tuple(_outbound(admission))),
        Chain(f"host_{name}", tuple(_from_host(admission))),
    )


def setup_commands(plan: Plan) -> list[str]:
    """One transaction that makes our table or brings its common part up to date.

    What workspaces have in it stays.
    """
    table = plan.table
    chains = base_chains(plan)
    return [
        f"add table inet {table}",
        f"add set inet {table} {OWN} {{ type ifname . ipv4_addr; }}",
        f"add set inet {table} {CONNECTIONS} {{ type ipv4_addr; size 65536; flags dynamic; }}",
        *(f"add map inet {table} {name} {{ type ipv4_addr : verdict; }}" for name in MAPS),
        *(chain.declaration(table) for chain in chains),
        *(line for chain in chains for line in chain.content(table)),
    ]


def workspace_commands(address: IPv4Address, policy: NetworkPolicy, plan: Plan) -> list[str]:
    """One transaction that puts a policy in force, whatever was there before."""
    table = plan.table
    chains = workspace_chains(address, policy, plan)
    return [
        *(chain.declaration(table) for chain in chains),
        *(line for chain in chains for line in chain.content(table)),
        *(f"add element {element}" for element in _elements(address, table)),
    ]


def removal_commands(addresses: Iterable[IPv4Address], plan: Plan) -> list[str]:
    """One transaction that removes all rules of these workspaces, there or not."""
    table = plan.table
    lines: list[str] = []
    for address in addresses:
        # Deleting what is absent is an error in nft 1.0; adding what is there is not.
        chains = [f"{kind}_{suffix(address)}" for kind in MAPS.values()]
        lines += [f"add chain inet {table} {chain}" for chain in chains]
        for element in _elements(address, table):
            lines += [f"add element {element}", f"delete element {element}"]
        for chain in chains:
            lines += [f"flush chain inet {table} {chain}", f"delete chain inet {table} {chain}"]
    return lines


def rebuild_commands(running: Mapping[IPv4Address, NetworkPolicy], plan: Plan) -> list[str]:
    """One transaction that replaces the whole table by what these workspaces need."""
    return [
        *teardown_commands(plan),
        *setup_commands(plan),
        *(
            line
            for address, policy in running.items()
            for line in workspace_commands(address, policy, plan)
        ),
    ]


def teardown_commands(plan: Plan) -> list[str]:
    """One transaction that removes our table, there or not. No other table is touched."""
    return [f"add table inet {plan.table}", f"delete table inet {plan.table}"]


def _elements(address: IPv4Address, table: str) -> list[str]:
    name = suffix(address)
    return [
        f'inet {table} {OWN} {{ "{host_end(address)}" . {address} }}',
        *(
            f"inet {table} {verdicts} {{ {address} : jump {kind}_{name} }}"
            for verdicts, kind in MAPS.items()
        ),
    ]


def _sender() -> Chain:
    """A workspace speaks IPv4 from its own address through its own link, or not at all."""
    return Chain(
        "sender",
        (
            rule(Verdict.ACCEPT, Member((Key.IN, Key.SOURCE), OWN)),
            rule(Verdict.DROP),
        ),
    )


def _party() -> Chain:
    """What a workspace sends belongs to a connection it is an end of.

    Without this an ICMP error that quotes a neighbour's connection would reach the neighbour.
    """
    return Chain(
        "party",
        (
            rule(Verdict.RETURN, Member((Key.IN, Key.INITIATOR), OWN)),
            rule(Verdict.RETURN, Member((Key.IN, Key.RESPONDER), OWN)),
            rule(Verdict.DROP),
        ),
    )


def _refuse(arriving: list[Match]) -> Chain:
    """A workspace is told at once that it may not; everyone else hears nothing."""
    tcp = match(Key.PROTOCOL, "tcp")
    return Chain(
        "refuse",
        (
            *(rule(Verdict.RESET, ours, tcp) for ours in arriving),
            *(rule(Verdict.REJECT, ours) for ours in arriving),
            rule(Verdict.DROP),
        ),
    )


def _anywhere() -> Chain:
    """What a workspace may send to where it may send anything.

    One chain for all: a set of protocols in each workspace's own rules would double the time
    nftables needs for a change on a host with many.
    """
    return Chain("anywhere", (rule(Verdict.ACCEPT, match(Key.PROTOCOL, "tcp", "udp", "icmp")),))


def _relay(plan: Plan, arriving: list[Match]) -> Chain:
    """Packets that pass through the host, from or to a workspace."""
    refuse = Jump("refuse")
    begun_by_ours = match(Key.INITIATOR, plan.subnet)
    crowded = Crowded(Key.INITIATOR, CONNECTIONS, plan.connections)
    names = (
        [
            rule(
                Verdict.ACCEPT,
                begun_by_ours,
                match(Key.RESPONDER, *plan.nameservers),
                _TRANSPORT,
                match(Key.SERVICE, 53),
            )
        ]
        if plan.nameservers
        else []
    )
    return Chain(
        "relay",
        (
            rule(Verdict.DROP, match(Key.STATE, "invalid", "untracked")),
            *_only_to_its_own_link(plan),
            *(rule(Jump("party"), ours) for ours in arriving),
            rule(refuse, begun_by_ours, match(Key.STATE, "new"), crowded),
            rule(Dispatch(Key.RESPONDER, INBOUND)),
            rule(refuse, match(Key.RESPONDER, plan.subnet)),
            rule(refuse, match(Key.RESPONDER, *NEVER)),
            *names,
            rule(refuse, match(Key.RESPONDER, *closed(plan.allow_private))),
            rule(Dispatch(Key.INITIATOR, OUTBOUND)),
            rule(refuse),
        ),
    )


def _visitor() -> Chain:
    """Packets from a workspace to the host: answers to what the host began, nothing else."""
    return Chain(
        "visitor",
        (
            rule(Verdict.DROP, match(Key.DIRECTION, "original")),
            rule(Verdict.DROP, match(Key.STATE, "invalid", "untracked", "new")),
            rule(Verdict.DROP, Member((Key.IN, Key.RESPONDER), OWN, negate=True)),
            rule(
                Verdict.ACCEPT,
                match(Key.PROTOCOL, "tcp"),
                match(Key.SERVICE, CONTROL_PORT),
            ),
            rule(Dispatch(Key.RESPONDER, FROM_HOST)),
            rule(Verdict.DROP),
        ),
    )


def _caller(plan: Plan) -> Chain:
    """Packets from the host's own processes to a workspace.

    Only the first packet of a connection is judged by its user: later ones may have none (the
    kernel finishes connections whose process has closed them). A connection that is not new
    began with an accepted packet, and its port is judged again each time.
    """
    new, known = match(Key.STATE, "new"), match(Key.STATE, "established")
    tcp, control = match(Key.PROTOCOL, "tcp"), match(Key.SERVICE, CONTROL_PORT)
    edge = [] if plan.edge_user is None else [match(Key.USER, plan.edge_user)]
    return Chain(
        "caller",
        (
            *_only_to_its_own_link(plan),
            # Refusals made by this firewall, and errors on the way (fragmentation needed).
            rule(Verdict.ACCEPT, match(Key.STATE, "related"), match(Key.RESET, "rst")),
            rule(Verdict.ACCEPT, match(Key.STATE, "related"), _ERRORS),
            rule(Verdict.DROP, match(Key.DIRECTION, "reply")),
            rule(Verdict.ACCEPT, tcp, control, known),
            rule(Verdict.ACCEPT, tcp, control, new, match(Key.USER, *plan.control_users)),
            rule(Verdict.RESET, tcp, control),
            rule(Dispatch(Key.RESPONDER, FROM_HOST), known),
            *(rule(Dispatch(Key.RESPONDER, FROM_HOST), new, user) for user in edge),
            rule(Verdict.RESET, tcp),
            rule(Verdict.DROP),
        ),
    )


def _only_to_its_own_link(plan: Plan) -> list[Rule]:
    return [
        rule(
            Verdict.DROP,
            match(Key.OUT, name),
            Member((Key.OUT, Key.DESTINATION), OWN, negate=True),
        )
        for name in wildcards(plan.subnet)
    ]


def _inbound(admission: Admission) -> list[Rule]:
    if not admission.sources or not admission.ports:
        return []
    sources = match(Key.INITIATOR, *admission.sources)
    return [
        rule(Verdict.ACCEPT, sources, _TRANSPORT, match(Key.SERVICE, *admission.ports)),
        rule(Verdict.ACCEPT, sources, match(Key.STATE, "related"), _ERRORS),
    ]


def _outbound(admission: Admission) -> list[Rule]:
    if not admission.internet:
        return []
    to = [match(Key.RESPONDER, *admission.destinations)] if admission.destinations else []
    if admission.destination_ports:
        ports = match(Key.SERVICE, *admission.destination_ports)
        return [
            rule(Verdict.ACCEPT, *to, _TRANSPORT, ports),
            rule(Verdict.ACCEPT, *to, match(Key.STATE, "related"), _ERRORS),
        ]
    return [rule(Jump("anywhere"), *to)]


def _from_host(admission: Admission) -> list[Rule]:
    if not admission.edge or not admission.ports:
        return []
    return [
        rule(
            Verdict.ACCEPT,
            match(Key.PROTOCOL, "tcp"),
            match(Key.SERVICE, *admission.ports),
        )
    ]
