"""Addresses that last."""

from __future__ import annotations

import stat
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from bastide.node.errors import Conflict, NoSpace
from bastide.node.network.lease import Leases

SUBNET = IPv4Network("10.211.0.0/24")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network" / "leases.json"


def test_a_machine_keeps_its_address(path: Path) -> None:
    """Repeated and in another process: the same address until release."""
    first = Leases(path, SUBNET).reserve("ws_1")
    again = Leases(path, SUBNET)
    assert again.reserve("ws_1") == first
    assert again.get("ws_1") == first
    again.release("ws_1")
    assert Leases(path, SUBNET).get("ws_1") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_usable_address_is_given_once(path: Path) -> None:
    """All but .0, the gateway and .255 are handed out, each to one; then it says it is full."""
    leases = Leases(path, SUBNET)
    given = [leases.reserve(f"ws_{number}") for number in range(253)]
    assert len(set(given)) == 253
    assert set(given) == {SUBNET[number] for number in range(2, 255)}
    with pytest.raises(NoSpace):
        leases.reserve("ws_one_more")


def test_a_released_address_rests(path: Path) -> None:
    """It is not given again before the rest of the subnet was, even after a restart."""
    leases = Leases(path, SUBNET)
    released = leases.reserve("ws_1")
    leases.release("ws_1")
    leases = Leases(path, SUBNET)
    later = [leases.reserve(f"ws_{number}") for number in range(10, 262)]
    assert released not in later
    assert leases.reserve("ws_last") == released


def test_addresses_found_in_use_are_adopted_unless_they_contradict(path: Path) -> None:
    """A running machine's address is noted; one that belongs to another is refused."""
    leases = Leases(path, SUBNET)
    assert leases.adopt("ws_1", IPv4Address("10.211.0.9"))
    assert leases.adopt("ws_1", IPv4Address("10.211.0.9"))
    assert not leases.adopt("ws_2", IPv4Address("10.211.0.9"))
    assert not leases.adopt("ws_1", IPv4Address("10.211.0.10"))
    assert not leases.adopt("ws_3", IPv4Address("10.211.0.1"))
    assert not leases.adopt("ws_3", IPv4Address("10.212.0.9"))
    assert Leases(path, SUBNET).all() == {"ws_1": IPv4Address("10.211.0.9")}


def test_leases_of_another_subnet_are_dropped(path: Path) -> None:
    """After a change of subnet the old addresses are gone and new ones are given."""
    Leases(path, SUBNET).reserve("ws_1")
    other = IPv4Network("10.77.0.0/24")
    assert Leases(path, other).get("ws_1") is None
    assert Leases(path, other).reserve("ws_1") in other


@pytest.mark.parametrize("text", ["", "{", "[]", '{"leases": []}', '{"leases": {"a": "x"}}'])
def test_a_broken_file_is_an_error_not_a_fresh_start(path: Path, text: str) -> None:
    """Addresses are never given twice because the file could not be read."""
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(Conflict, match=r"leases\.json"):
        Leases(path, SUBNET)
