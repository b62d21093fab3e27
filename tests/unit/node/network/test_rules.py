"""What the generated rules let through, for any policy."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.errors import Invalid
from bastide.node.network import chains, rules
from bastide.node.network.names import host_end
from bastide.node.network.ranges import METADATA, NEVER
from bastide.node.network.ruleset import Key
from bastide.settings import PRIVATE_RANGES

from .firewall import Firewall, Packet
from .packets import (
    API,
    BASTION,
    EDGE,
    GATEWAY,
    OPENED,
    OTHER,
    PLAN,
    PUBLIC,
    RESOLVER,
    ROOT,
    SUBNET,
    A,
    B,
    addresses,
    begin,
    conversations,
    inside,
    packet_of,
    policies,
    services,
    states,
)


@given(policies(), policies(), conversations(A, addresses | st.just(GATEWAY)))
def test_a_workspace_never_begins_anything_with_the_host(
    mine: NetworkPolicy, other: NetworkPolicy, packet: Packet
) -> None:
    """No policy lets a workspace's own connection reach a process of the host but for names."""
    firewall = Firewall(PLAN, {A: mine, B: other})
    name = packet.get(Key.RESPONDER) == GATEWAY and packet.get(Key.SERVICE) == 53
    if packet.get(Key.SOURCE) == A and not name:
        assert not firewall.passes("input", packet)


@given(policies(), conversations(GATEWAY, A), services)
def test_only_answers_at_open_ports_reach_the_host(
    policy: NetworkPolicy, packet: Packet, service: int
) -> None:
    """What a workspace sends to the host is an answer from a port that is open to the host."""
    firewall = Firewall(PLAN, {A: policy, B: NetworkPolicy()})
    if packet[Key.SOURCE] == A and firewall.passes("input", packet):
        assert packet[Key.DIRECTION] == "reply"
        assert packet[Key.PROTOCOL] == "tcp"
        if packet[Key.SERVICE] != CONTROL_PORT:
            assert policy.public_access
            assert packet[Key.SERVICE] in policy.ingress_ports


@given(policies(), policies(st.sampled_from([A, B]) | inside), conversations(A, B))
def test_neighbours_need_a_link(a: NetworkPolicy, b: NetworkPolicy, packet: Packet) -> None:
    """A connection between workspaces passes only with a link and an open port."""
    if Firewall(OPENED, {A: a, B: b}).passes("forward", packet):
        assert str(A) in b.links
        assert packet[Key.SERVICE] in b.ingress_ports
        if packet[Key.PROTOCOL] == "icmp":  # an error that belongs to such a connection
            assert packet[Key.STATE] == "related"


@given(policies(inside.filter(lambda address: address != A)), policies(), conversations(A, B))
def test_no_policy_without_a_link_admits_a_neighbour(
    b: NetworkPolicy, a: NetworkPolicy, packet: Packet
) -> None:
    """`ingress` never stands in for a link, not even 0.0.0.0/0 or the subnet itself."""
    assert not Firewall(OPENED, {A: a, B: b}).passes("forward", packet)


@given(policies(), conversations(A, inside.filter(lambda address: address not in (A, B))))
def test_unused_addresses_are_no_way_out(policy: NetworkPolicy, packet: Packet) -> None:
    """An address of the subnet that nobody has is refused, even when 10.0.0.0/8 is opened."""
    assert not Firewall(OPENED, {A: policy, B: policy}).passes("forward", packet)


forbidden = st.one_of(
    *(
        st.integers(int(network[0]), int(network[-1])).map(IPv4Address)
        for network in (*NEVER, *METADATA, *PRIVATE_RANGES)
    )
).filter(lambda address: address not in SUBNET)


@given(policies(), conversations(A, forbidden))
def test_forbidden_ranges_are_closed_to_every_policy(policy: NetworkPolicy, packet: Packet) -> None:
    """Metadata, link-local, loopback, multicast, reserved and private nets are out of reach."""
    assert not Firewall(PLAN, {A: policy}).passes("forward", packet)


@given(policies(), conversations(A, forbidden), st.lists(st.sampled_from(PRIVATE_RANGES)))
def test_exceptions_open_private_nets_and_nothing_else(
    policy: NetworkPolicy, packet: Packet, opened: list[IPv4Network]
) -> None:
    """`allow_private` opens what it lists and never a metadata address."""
    plan = chains.Plan("t", SUBNET, allow_private=tuple(opened))
    if Firewall(plan, {A: policy}).passes("forward", packet):
        responder = packet[Key.RESPONDER]
        assert isinstance(responder, IPv4Address)
        assert any(responder in network for network in opened)
        assert not any(responder in network for network in (*NEVER, *METADATA))


@given(policies(), st.sampled_from(["tcp", "udp", "icmp", "sctp"]), services, states)
def test_the_gateway_answers_names_only(
    policy: NetworkPolicy, protocol: str, service: int, state: str
) -> None:
    """A workspace reaches port 53 of its gateway, at a bounded pace, and no other of the host."""
    asked = begin(A, GATEWAY, service, protocol=protocol, state=state)
    asks = protocol in {"tcp", "udp"} and service == 53 and state != "invalid"
    assert Firewall(PLAN, {A: policy}).passes("input", asked) == asks
    assert not Firewall(PLAN, {A: policy}, eager=frozenset({A})).passes("input", asked)
    if asks:
        answer = packet_of(GATEWAY, A, A, GATEWAY, direction="reply", protocol=protocol, service=53)
        answer = {**answer, Key.STATE: "established"}
        assert Firewall(PLAN, {A: policy}).passes("output", answer)


NAMED = NetworkPolicy(egress=("api.example.com", "*.example.org"))


def test_names_open_what_was_resolved_and_nothing_else() -> None:
    """An address is reached while it is resolved; a connection of that time lives on."""
    asked = begin(A, PUBLIC, 443)
    later = {**asked, Key.STATE: "established"}
    closed = Firewall(PLAN, {A: NAMED, B: NAMED}, resolved=[(B, PUBLIC)], active=[(B, PUBLIC)])
    assert not closed.passes("forward", asked)
    assert not closed.passes("forward", later)
    resolved = Firewall(PLAN, {A: NAMED}, resolved=[(A, PUBLIC)])
    assert resolved.passes("forward", asked)
    assert resolved.passes("forward", later)
    used = Firewall(PLAN, {A: NAMED}, active=[(A, PUBLIC)])
    assert not used.passes("forward", asked)
    assert used.passes("forward", later)


@given(policies(), conversations(A, forbidden | inside))
def test_no_name_opens_what_is_never_reached(policy: NetworkPolicy, packet: Packet) -> None:
    """Even if a forbidden address were resolved, the firewall keeps it closed."""
    pair = [(A, responder) for responder in (packet.get(Key.RESPONDER),) if responder != B]
    pairs = [(a, b) for a, b in pair if isinstance(b, IPv4Address)]
    firewall = Firewall(PLAN, {A: policy}, resolved=pairs, active=pairs)
    if packet.get(Key.RESPONDER) != A:
        assert not firewall.passes("forward", packet)


def test_what_is_refused_is_told_of_once_it_is_not_too_much() -> None:
    """A workspace's own refused packets are logged, at a bounded pace; others' are not."""
    dark = {A: NetworkPolicy(allow_internet=False)}
    firewall = Firewall(PLAN, dark)
    assert not firewall.passes("forward", begin(A, PUBLIC, 443))
    assert not firewall.passes("input", begin(A, GATEWAY, 22))
    assert len(firewall.logged) == 2
    assert not firewall.passes("forward", begin(PUBLIC, A, 80))
    assert len(firewall.logged) == 2
    flood = Firewall(PLAN, dark, eager=frozenset({A}))
    assert not flood.passes("forward", begin(A, PUBLIC, 443))
    assert flood.logged == []


@given(policies(), conversations(A, st.just(PUBLIC) | addresses))
def test_outbound_keeps_to_the_policy(policy: NetworkPolicy, packet: Packet) -> None:
    """What leaves was allowed by `allow_internet`, `egress` and `egress_ports`."""
    responder = packet.get(Key.RESPONDER)
    if not isinstance(responder, IPv4Address) or responder in SUBNET:
        return
    if Firewall(PLAN, {A: policy}).passes("forward", packet):
        assert policy.allow_internet
        if policy.egress:
            assert any(responder in IPv4Network(entry) for entry in policy.egress)
        if policy.egress_ports:
            assert packet[Key.SERVICE] in policy.egress_ports


@given(policies(), conversations(st.just(PUBLIC) | addresses, A))
def test_inbound_keeps_to_the_policy(policy: NetworkPolicy, packet: Packet) -> None:
    """What comes in from outside has an admitted source and an open port."""
    if Firewall(PLAN, {A: policy}).passes("forward", packet):
        initiator = packet[Key.INITIATOR]
        assert isinstance(initiator, IPv4Address)
        assert any(initiator in IPv4Network(entry) for entry in policy.ingress)
        assert packet[Key.SERVICE] in policy.ingress_ports


@pytest.mark.parametrize("user", [ROOT, API, EDGE, OTHER])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@given(policies(), services)
def test_host_processes_reach_only_their_ports(
    user: int, protocol: str, policy: NetworkPolicy, other: int
) -> None:
    """The control port is root's and the api's; open ports are the edge's, when it is admitted."""
    firewall = Firewall(PLAN, {A: policy})
    for service in (CONTROL_PORT, other, *policy.ingress_ports):
        packet = begin(GATEWAY, A, service, protocol=protocol, user=user)
        if service == CONTROL_PORT:
            expected = user in {ROOT, API}
        else:
            expected = user == EDGE and policy.public_access and service in policy.ingress_ports
        assert firewall.passes("output", packet) == (expected and protocol == "tcp")


@given(policies(), services)
def test_a_host_connection_ends_with_its_admission(policy: NetworkPolicy, other: int) -> None:
    """Packets of a connection that is there pass, both ways, while its port is admitted."""
    firewall = Firewall(PLAN, {A: policy})
    for service in (CONTROL_PORT, other, *policy.ingress_ports):
        sent = begin(GATEWAY, A, service, state="established")
        answer = packet_of(A, GATEWAY, GATEWAY, A, direction="reply", service=service)
        answer = {**answer, Key.STATE: "established"}
        admitted = policy.public_access and service in policy.ingress_ports
        expected = admitted or service == CONTROL_PORT
        assert firewall.passes("output", sent) == expected
        assert firewall.passes("input", answer) == expected


@given(policies(), addresses.filter(lambda address: address != A))
def test_a_workspace_speaks_only_from_its_address(
    policy: NetworkPolicy, source: IPv4Address
) -> None:
    """Spoofed sources are dropped at the door, and so is everything that is no IPv4."""
    firewall = Firewall(PLAN, {A: policy, B: policy})
    assert not firewall.passes("prerouting", {Key.IN: host_end(A), Key.SOURCE: source})
    assert not firewall.passes("prerouting", {Key.IN: host_end(A)})
    assert firewall.passes("prerouting", {Key.IN: host_end(A), Key.SOURCE: A})


def test_nobody_else_speaks_for_a_workspace() -> None:
    """A packet with a workspace's address that came another way is dropped."""
    firewall = Firewall(PLAN, {A: NetworkPolicy()})
    assert not firewall.passes("prerouting", {Key.IN: "eth0", Key.SOURCE: A})
    assert firewall.passes("prerouting", {Key.IN: "eth0", Key.SOURCE: PUBLIC})


@given(policies(), policies(), conversations(addresses, addresses))
def test_a_link_without_rules_is_dark(a: NetworkPolicy, b: NetworkPolicy, packet: Packet) -> None:
    """Through a link the firewall has no rules for, nothing passes in any direction."""
    firewall = Firewall(PLAN, {A: a, B: b})
    unknown = host_end(IPv4Address("10.211.9.9"))
    sent = {**packet, Key.IN: unknown}
    received = {**packet, Key.OUT: unknown, Key.USER: ROOT}
    assert not firewall.passes("prerouting", sent)
    assert not firewall.passes("forward", received)
    assert not firewall.passes("output", received)


def test_an_admitted_packet_goes_through_the_right_link_only() -> None:
    """A packet for one workspace is dropped on its way into another's link."""
    linked = NetworkPolicy(links=(str(A),), ingress_ports=(80,), public_access=True)
    firewall = Firewall(PLAN, {A: NetworkPolicy(), B: linked})
    packet = begin(A, B, 80)
    assert firewall.passes("forward", packet)
    assert not firewall.passes("forward", {**packet, Key.OUT: host_end(A)})
    from_edge = begin(GATEWAY, B, 80, user=EDGE)
    assert firewall.passes("output", from_edge)
    assert not firewall.passes("output", {**from_edge, Key.OUT: host_end(A)})


def test_an_error_about_a_stranger_s_connection_does_not_reach_them() -> None:
    """A workspace cannot send ICMP errors into a connection it is no end of."""
    stranger = IPv4Address("10.211.0.99")
    policy = NetworkPolicy()
    firewall = Firewall(PLAN, {A: policy, stranger: policy})
    forged = packet_of(
        stranger,
        A,
        A,
        PUBLIC,
        direction="reply",
        state="related",
        protocol="icmp",
        icmp="destination-unreachable",
    )
    assert not firewall.passes("forward", forged)
    honest = {**forged, Key.SOURCE: PUBLIC, Key.IN: "eth0"}
    assert firewall.passes("forward", honest)


def test_defaults_are_dark_inside_and_open_outside() -> None:
    """A new workspace reaches the internet and is reached by nobody."""
    firewall = Firewall(PLAN, {A: NetworkPolicy(), B: NetworkPolicy()})
    assert firewall.passes("forward", begin(A, PUBLIC, 443))
    assert not firewall.passes("forward", begin(PUBLIC, A, 80))
    assert not firewall.passes("forward", begin(B, A, 80))


def test_links_point_one_way() -> None:
    """The target lists its callers; the caller is not opened to the target."""
    linked = NetworkPolicy(links=(str(A),), ingress_ports=(80,))
    firewall = Firewall(PLAN, {A: NetworkPolicy(ingress_ports=(80,)), B: linked})
    assert firewall.passes("forward", begin(A, B, 80))
    assert firewall.passes("forward", packet_of(B, A, A, B, direction="reply"))
    assert not firewall.passes("forward", begin(A, B, 81))
    assert not firewall.passes("forward", begin(B, A, 80))


def test_egress_lists_narrow_the_internet() -> None:
    """Only listed ranges and ports are reached; everything means no restriction."""
    dark = Firewall(PLAN, {A: NetworkPolicy(allow_internet=False, egress=("0.0.0.0/0",))})
    assert not dark.passes("forward", begin(A, PUBLIC, 443))
    assert not dark.passes("forward", begin(A, RESOLVER, 53))
    narrow = NetworkPolicy(egress=("203.0.113.0/28",), egress_ports=(443,))
    firewall = Firewall(PLAN, {A: narrow})
    assert firewall.passes("forward", begin(A, PUBLIC, 443))
    assert not firewall.passes("forward", begin(A, PUBLIC, 80))
    assert not firewall.passes("forward", begin(A, IPv4Address("203.0.113.99"), 443))
    anywhere = Firewall(PLAN, {A: NetworkPolicy(egress=("0.0.0.0/0", "203.0.113.1"))})
    assert anywhere.passes("forward", begin(A, IPv4Address("198.51.100.1"), 443))


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (NetworkPolicy(ingress=("example.com",)), "ingress"),
        (NetworkPolicy(ingress=("host",)), "ingress"),
        (NetworkPolicy(ingress=("::/0",)), "ingress"),
        (NetworkPolicy(ingress=("203.0.113.7/24",)), "ingress"),
        (NetworkPolicy(ingress=("1.1.1.1; flush ruleset",)), "ingress"),
        (NetworkPolicy(egress=("api example.com",)), "egress"),
        (NetworkPolicy(egress=("203.0.113.300",)), "egress"),
        (NetworkPolicy(egress=("*.*.example.com",)), "egress"),
        (NetworkPolicy(egress=("-a.example.com",)), "egress"),
        (NetworkPolicy(egress=("example.com; flush ruleset",)), "egress"),
        (NetworkPolicy(outbound_ip="203.0.113.7"), "outbound_ip"),
        (NetworkPolicy(egress=("2001:db8::1",)), "egress"),
        (NetworkPolicy(links=("203.0.113.7",)), "links"),
        (NetworkPolicy(links=("10.211.0.1",)), "links"),
        (NetworkPolicy(links=("10.211.0.0/16",)), "links"),
        (NetworkPolicy(ingress_ports=(0,)), "ingress_ports"),
        (NetworkPolicy(ingress_ports=(65536,)), "ingress_ports"),
        (NetworkPolicy(ingress_ports=(CONTROL_PORT,)), "ingress_ports"),
        (NetworkPolicy(egress_ports=(-1,)), "egress_ports"),
    ],
)
def test_wrong_entries_are_refused_by_name(policy: NetworkPolicy, field: str) -> None:
    """An entry that cannot be a rule is refused, and the error names its list."""
    with pytest.raises(Invalid) as caught:
        rules.elements(A, policy, PLAN)
    assert caught.value.details == {"field": field}


@given(policies(), policies())
def test_a_change_is_about_one_workspace(before: NetworkPolicy, after: NetworkPolicy) -> None:
    """Every element that comes or goes has the workspace's address; what stays is not touched."""
    old, new = (rules.elements(A, policy, PLAN) for policy in (before, after))
    made = rules.changes(old, new)
    assert all(A in change.element.parts for change in made)
    assert {change.element for change in made} == old ^ new
    kinds = [change.add for change in made]
    assert kinds == sorted(kinds)


@given(policies())
def test_rules_are_plain_words(policy: NetworkPolicy) -> None:
    """Only addresses, numbers and our own words get into the text given to nftables."""
    for line in rules.filling_commands([rules.elements(A, policy, PLAN)], PLAN):
        assert "\n" not in line
        assert ";" not in line
        assert str(A) in line


@given(policies())
def test_the_same_policy_is_no_change(policy: NetworkPolicy) -> None:
    """Putting in force what is in force asks nothing of the kernel."""
    state = rules.elements(A, policy, PLAN)
    assert rules.changes(state, state) == []


@pytest.mark.parametrize("user", [ROOT, API, EDGE, BASTION, OTHER])
@given(policy=policies(), ssh=st.booleans())
def test_only_the_bastion_reaches_ssh(policy: NetworkPolicy, ssh: bool, user: int) -> None:  # noqa: FBT001
    """Port 22 is open to the bastion's user while SSH is on, to it alone, and no other port is."""
    policy = policy.model_copy(update={"ssh": ssh})
    firewall = Firewall(replace(PLAN, ssh_user=BASTION), {A: policy})
    by_edge = user == EDGE and policy.public_access and 22 in policy.ingress_ports
    begun = begin(GATEWAY, A, 22, user=user)
    assert firewall.passes("output", begun) == (by_edge or (user == BASTION and ssh))
    if user == BASTION:
        for port in (21, 80, 9990, CONTROL_PORT):
            assert not firewall.passes("output", begin(GATEWAY, A, port, user=user))
    going_on = {**begun, Key.STATE: "established"}
    admitted = ssh or (policy.public_access and 22 in policy.ingress_ports)
    assert firewall.passes("output", going_on) == admitted
