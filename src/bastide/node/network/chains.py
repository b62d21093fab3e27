"""The rules of the firewall: the same for all workspaces, pure values.

How a packet is judged. Every packet, in either direction of a connection, is judged by the
connection's two ends as conntrack keeps them: who began it and who answers, at which port.
"Established" is never a reason to let a packet pass. So a connection lives exactly as long as
the policy admits it, a change of policy ends it in both directions at its next packet, and no
conntrack entry need be found and deleted (which would race with new packets, and would let a
stream be picked up again in the middle). It costs a few hash lookups per packet.

The rules are the same for all workspaces. A policy is elements of named sets, whose first key is
the workspace's address: putting one in force changes elements only, which costs the same however
many workspaces there are (a rule would make the kernel check the whole table again).

A destination that is allowed by name is an element of `resolved`, for as long as the answer of
the resolver holds. A connection that was begun in that time keeps the address in `active` while
packets come, and lives on there.

Sources: spec control-plane 4.4 and 5.5, architecture section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bastide.domain.machine import CONTROL_PORT, SSH_PORT
from bastide.node.network.names import wildcards
from bastide.node.network.ranges import NEVER, closed
from bastide.node.network.ruleset import (
    Chain,
    Crowded,
    Jump,
    Key,
    LeaveAs,
    Log,
    Match,
    Member,
    Paced,
    Remembered,
    Rule,
    Verdict,
    Within,
    match,
    rule,
)

OWN = "own"  # host end . address: what a workspace may call itself
DOORS = "doors"  # workspace . port: its open ports
EDGE = "edge"  # workspace . port: those the edge may use
SSH = "ssh"  # workspace: the bastion may use its SSH port
LINKED = "linked"  # workspace . caller: workspaces that may call it
CALLED = "called"  # workspace: others may, from the ranges in the sets below
CALLERS = "callers"  # and a length, workspace . range of that length
ONLINE = "online"  # workspace: it may begin connections at any port
OUT_PORTS = "out_ports"  # workspace . port: only at these
ANYWHERE = "anywhere"  # workspace: with any destination
RANGED = "ranged"  # workspace: with the ranges in the sets below
RANGES = "ranges"  # and a length, workspace . range of that length
LEAVE_AS = "leave_as"  # map, workspace : address: what the outside sees it as
RESOLVED = "resolved"  # workspace . address, timed: given out by the resolver for a listed name
ACTIVE = "active"  # the same, as long as a connection is used
CONNECTIONS = "connections"  # counts connections per workspace
QUESTIONS = "questions"  # counts questions to the resolver
REFUSED, LOGGED = "refused", "logged"  # count packets refused, and those told of

_LENGTHS = range(1, 33)
_PAIR = "type ipv4_addr . ipv4_addr"
_DOOR = "type ipv4_addr . inet_service"
# What workspaces fill by themselves is bounded.
_SIZE = "size 1048576"
SETS = {
    OWN: "type ifname . ipv4_addr",
    DOORS: _DOOR,
    EDGE: _DOOR,
    SSH: "type ipv4_addr",
    LINKED: _PAIR,
    CALLED: "type ipv4_addr",
    ONLINE: "type ipv4_addr",
    OUT_PORTS: _DOOR,
    ANYWHERE: "type ipv4_addr",
    RANGED: "type ipv4_addr",
    **{f"{name}{length}": _PAIR for name in (CALLERS, RANGES) for length in _LENGTHS},
}
"""What a policy is written in. None has a size: the kernel would allot all of it at once. Ranges
have a set for each length: one set of all of them would be slow to take something out of."""
SECONDS_ACTIVE = 3600
TIMED = {
    RESOLVED: f"{_PAIR}; {_SIZE}; flags timeout; timeout 1h",
    ACTIVE: f"{_PAIR}; {_SIZE}; flags dynamic,timeout; timeout {SECONDS_ACTIVE}s",
}
COUNTING = {
    CONNECTIONS: "type ipv4_addr; size 65536; flags dynamic",
    QUESTIONS: "type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m",
    REFUSED: "type ipv4_addr; size 65536; flags dynamic; counter",
    LOGGED: "type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m",
}

NAME_PORT = 53
_QUESTIONS_PER_SECOND, _QUESTIONS_AT_ONCE = 100, 500
_LOGGED_PER_SECOND, _LOGGED_AT_ONCE = 10, 50

_TRANSPORT = match(Key.PROTOCOL, "tcp", "udp")
_ERRORS = match(Key.ICMP, "destination-unreachable", "time-exceeded", "parameter-problem")
_RELATED = match(Key.STATE, "related")
_GOING = (Key.INITIATOR, Key.RESPONDER)
_COMING = (Key.RESPONDER, Key.INITIATOR)
_DOOR_OF_THE_EDGE = (match(Key.PROTOCOL, "tcp"), Member((Key.RESPONDER, Key.SERVICE), EDGE))
_DOOR_OF_THE_BASTION = (
    match(Key.PROTOCOL, "tcp"),
    match(Key.SERVICE, SSH_PORT),
    Member((Key.RESPONDER,), SSH),
)


@dataclass(frozen=True)
class Plan:
    """What the rules of one host are made from. Users are numeric ids.

    `pool` holds the addresses a workspace may leave as. `log_group` is the netlink group that
    hears of refused packets.
    """

    table: str
    subnet: IPv4Network
    allow_private: tuple[IPv4Network, ...] = ()
    connections: int = 4096
    control_users: tuple[int, ...] = (0,)
    edge_user: int | None = None
    ssh_user: int | None = None
    pool: tuple[IPv4Address, ...] = ()
    log_group: int = 1

    @property
    def gateway(self) -> IPv4Address:
        """Where workspaces ask for names."""
        return self.subnet.network_address + 1


def base_chains(plan: Plan) -> tuple[Chain, ...]:
    """All chains; those with a hook come last."""
    ours = wildcards(plan.subnet)
    arriving = [match(Key.IN, name) for name in ours]
    leaving = [match(Key.OUT, name) for name in ours]
    return (
        _sender(),
        _party(),
        _refuse(plan, arriving),
        Chain("permitted", (rule(Verdict.ACCEPT, match(Key.PROTOCOL, "tcp", "udp", "icmp")),)),
        Chain(
            "door",
            (
                rule(Verdict.ACCEPT, Member(_COMING, LINKED)),
                rule(Jump(CALLERS), Member((Key.RESPONDER,), CALLED)),
            ),
        ),
        Chain(
            CALLERS,
            tuple(
                rule(Verdict.ACCEPT, Within(_COMING, f"{CALLERS}{length}", length))
                for length in _LENGTHS
            ),
        ),
        Chain(
            RANGES,
            tuple(
                rule(Jump("permitted"), Within(_GOING, f"{RANGES}{length}", length))
                for length in _LENGTHS
            ),
        ),
        _outside(),
        _relay(plan, arriving),
        _question(plan),
        _visitor(plan),
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
            tuple(
                rule(
                    outcome,
                    match(Key.SOURCE, plan.subnet),
                    Match((Key.DESTINATION,), (plan.subnet,), negate=True),
                )
                for outcome in (LeaveAs(Key.SOURCE, LEAVE_AS), Verdict.MASQUERADE)
            ),
            hook="type nat hook postrouting priority srcnat",
        ),
    )


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


def _refuse(plan: Plan, arriving: list[Match]) -> Chain:
    """A workspace is told at once that it may not; everyone else hears nothing."""
    tcp = match(Key.PROTOCOL, "tcp")
    return Chain(
        "refuse",
        (
            *(_told(plan, ours) for ours in arriving),
            *(rule(Verdict.RESET, ours, tcp) for ours in arriving),
            *(rule(Verdict.REJECT, ours) for ours in arriving),
            rule(Verdict.DROP),
        ),
    )


def _told(plan: Plan, *conditions: Match) -> Rule:
    """Count what a workspace is refused, and tell of some of it."""
    return rule(
        Log(plan.log_group),
        *conditions,
        match(Key.DIRECTION, "original"),
        Remembered((Key.INITIATOR,), REFUSED),
        Paced(Key.INITIATOR, LOGGED, _LOGGED_PER_SECOND, _LOGGED_AT_ONCE),
    )


def _outside() -> Chain:
    """Whether a workspace may reach a destination outside."""
    permitted, established = Jump("permitted"), match(Key.STATE, "established")
    used = Remembered(_GOING, ACTIVE, SECONDS_ACTIVE)
    return Chain(
        "outside",
        (
            rule(permitted, Member((Key.INITIATOR,), ANYWHERE)),
            rule(Jump(RANGES), Member((Key.INITIATOR,), RANGED)),
            rule(permitted, established, Member(_GOING, RESOLVED), used),
            rule(permitted, Member(_GOING, RESOLVED)),
            rule(permitted, established, Member(_GOING, ACTIVE), used),
            rule(permitted, _RELATED, _ERRORS, Member(_GOING, ACTIVE)),
        ),
    )


def _relay(plan: Plan, arriving: list[Match]) -> Chain:
    """Packets that pass through the host, from or to a workspace."""
    refuse, outside = Jump("refuse"), Jump("outside")
    open_door = Member((Key.RESPONDER, Key.SERVICE), DOORS)
    open_port = Member((Key.INITIATOR, Key.SERVICE), OUT_PORTS)
    crowded = Crowded(Key.INITIATOR, CONNECTIONS, plan.connections)
    return Chain(
        "relay",
        (
            rule(Verdict.DROP, match(Key.STATE, "invalid", "untracked")),
            *_only_to_its_own_link(plan),
            *(rule(Jump("party"), ours) for ours in arriving),
            rule(refuse, match(Key.INITIATOR, plan.subnet), match(Key.STATE, "new"), crowded),
            rule(Jump("door"), _TRANSPORT, open_door),
            rule(Jump("door"), _RELATED, _ERRORS, open_door),
            rule(refuse, match(Key.RESPONDER, plan.subnet)),
            rule(refuse, match(Key.RESPONDER, *NEVER)),
            rule(refuse, match(Key.RESPONDER, *closed(plan.allow_private))),
            rule(outside, Member((Key.INITIATOR,), ONLINE)),
            rule(outside, _TRANSPORT, open_port),
            rule(outside, _RELATED, _ERRORS, open_port),
            rule(refuse),
        ),
    )


def _question(plan: Plan) -> Chain:
    """Packets from a workspace to the resolver: not more than it has use for."""
    new = match(Key.STATE, "new")
    return Chain(
        "question",
        (
            rule(
                Verdict.DROP,
                Paced(Key.SOURCE, QUESTIONS, _QUESTIONS_PER_SECOND, _QUESTIONS_AT_ONCE, over=True),
            ),
            rule(Verdict.DROP, new, Crowded(Key.INITIATOR, CONNECTIONS, plan.connections)),
            rule(Verdict.ACCEPT),
        ),
    )


def _visitor(plan: Plan) -> Chain:
    """Packets from a workspace to the host: questions for names, and answers to what it began."""
    asks = (
        match(Key.DIRECTION, "original"),
        _TRANSPORT,
        match(Key.RESPONDER, plan.gateway),
        match(Key.SERVICE, NAME_PORT),
    )
    return Chain(
        "visitor",
        (
            rule(Verdict.DROP, match(Key.STATE, "invalid", "untracked")),
            rule(Jump("question"), match(Key.DESTINATION, plan.gateway), *asks),
            _told(plan),
            rule(Verdict.DROP, match(Key.DIRECTION, "original")),
            rule(Verdict.DROP, match(Key.STATE, "new")),
            rule(Verdict.DROP, Member((Key.IN, Key.RESPONDER), OWN, negate=True)),
            rule(
                Verdict.ACCEPT,
                match(Key.PROTOCOL, "tcp"),
                match(Key.SERVICE, CONTROL_PORT),
            ),
            rule(Verdict.ACCEPT, *_DOOR_OF_THE_EDGE),
            rule(Verdict.ACCEPT, *_DOOR_OF_THE_BASTION),
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
    bastion = [] if plan.ssh_user is None else [match(Key.USER, plan.ssh_user)]
    return Chain(
        "caller",
        (
            *_only_to_its_own_link(plan),
            # Refusals made by this firewall, and errors on the way (fragmentation needed).
            rule(Verdict.ACCEPT, match(Key.STATE, "related"), match(Key.RESET, "rst")),
            rule(Verdict.ACCEPT, match(Key.STATE, "related"), _ERRORS),
            rule(
                Verdict.ACCEPT,
                match(Key.DIRECTION, "reply"),
                _TRANSPORT,
                match(Key.SOURCE, plan.gateway),
                match(Key.RESPONDER, plan.gateway),
                match(Key.SERVICE, NAME_PORT),
            ),
            rule(Verdict.DROP, match(Key.DIRECTION, "reply")),
            rule(Verdict.ACCEPT, tcp, control, known),
            rule(Verdict.ACCEPT, tcp, control, new, match(Key.USER, *plan.control_users)),
            rule(Verdict.RESET, tcp, control),
            rule(Verdict.ACCEPT, *_DOOR_OF_THE_EDGE, known),
            *(rule(Verdict.ACCEPT, *_DOOR_OF_THE_EDGE, new, user) for user in edge),
            rule(Verdict.ACCEPT, *_DOOR_OF_THE_BASTION, known),
            *(rule(Verdict.ACCEPT, *_DOOR_OF_THE_BASTION, new, user) for user in bastion),
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
