"""Addresses that are reached by name."""

from __future__ import annotations

from ipaddress import IPv4Address

from bastide.domain.egress import Names, destinations
from bastide.domain.resolving import LONGEST, SHORTEST
from bastide.node.network.permits import GRACE, MOST, Permits

WORKSPACE = IPv4Address("10.211.0.2")
ONE, TWO = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")


def listing(*entries: str) -> Names:
    return destinations(entries).names


def permits(*entries: str) -> Permits:
    found = Permits()
    found.set_names(WORKSPACE, listing(*entries))
    return found


def test_only_listed_names_are_granted() -> None:
    """For another name, or another workspace, nothing is."""
    held = permits("a.example")
    assert held.grant(WORKSPACE, "a.example", [ONE], 300, 0).addresses == (ONE,)
    assert held.grant(WORKSPACE, "b.example", [ONE], 300, 0).addresses == ()
    other = IPv4Address("10.211.0.3")
    assert held.grant(other, "a.example", [ONE], 300, 0).addresses == ()


def test_lifetimes_have_bounds_and_are_not_written_twice() -> None:
    """Short ones are longer, long ones shorter; what is long enough is left alone."""
    held = permits("a.example")
    assert held.grant(WORKSPACE, "a.example", [ONE], 0, 0).lifetimes == {ONE: SHORTEST + GRACE}
    again = held.grant(WORKSPACE, "a.example", [ONE], 0, GRACE - 1)
    assert again.addresses == (ONE,)
    assert again.lifetimes == {}
    later = held.grant(WORKSPACE, "a.example", [ONE], 10**6, GRACE + 1)
    assert later.lifetimes == {ONE: LONGEST + GRACE}


def test_what_could_not_be_written_is_written_next_time() -> None:
    """A grant the firewall did not take counts for nothing."""
    held = permits("a.example")
    held.grant(WORKSPACE, "a.example", [ONE], 300, 100)
    held.unwritten(WORKSPACE, [ONE])
    assert ONE in held.grant(WORKSPACE, "a.example", [ONE], 300, 101).lifetimes


def test_an_address_goes_with_its_last_name() -> None:
    """Shared by two names it stays for the one that stays."""
    held = permits("a.example", "b.example")
    held.grant(WORKSPACE, "a.example", [ONE, TWO], 300, 0)
    held.grant(WORKSPACE, "b.example", [TWO], 300, 0)
    assert held.going(WORKSPACE, listing("b.example")) == [ONE]
    held.set_names(WORKSPACE, listing("b.example"))
    assert held.going(WORKSPACE, Names()) == [TWO]


def test_adopted_addresses_stay_while_no_name_is_taken_away() -> None:
    """Nobody knows whose they were."""
    held = Permits()
    held.adopt(WORKSPACE, ONE, 100)
    assert held.going(WORKSPACE, listing("a.example")) == []
    held.set_names(WORKSPACE, listing("a.example"))
    assert held.going(WORKSPACE, listing("a.example", "b.example")) == []
    assert held.going(WORKSPACE, listing("b.example")) == [ONE]
    held.grant(WORKSPACE, "a.example", [ONE], 300, 0)
    held.set_names(WORKSPACE, listing("a.example", "b.example"))
    assert held.going(WORKSPACE, listing("b.example")) == [ONE]


def test_one_workspace_has_a_bounded_number() -> None:
    """Past it nothing more is granted; what has run out unused makes room."""
    held = permits("*.example")
    many = [IPv4Address(int(ONE) + number) for number in range(MOST + 10)]
    assert len(held.grant(WORKSPACE, "a.example", many, 60, 0).addresses) == MOST
    assert held.grant(WORKSPACE, "b.example", many[-1:], 60, 0).addresses == ()
    held.prune({(WORKSPACE, ONE)}, 10_000)
    assert held.grant(WORKSPACE, "b.example", many[-1:], 60, 10_000).addresses == (many[-1],)
    assert set(held.forget(WORKSPACE)) == {ONE, many[-1]}


def test_what_the_firewall_lost_is_written_again() -> None:
    """A table that was emptied by somebody: known to be lost, and granted anew."""
    held = permits("a.example")
    granted = held.grant(WORKSPACE, "a.example", [ONE], 300, 0)
    assert granted.seconds == 300 + GRACE
    assert not held.confirm({(WORKSPACE, ONE)}, 1)
    assert not held.confirm(set(), 10_000)  # that one had run out
    assert held.confirm(set(), 1)
    assert ONE in held.grant(WORKSPACE, "a.example", [ONE], 300, 1).lifetimes
