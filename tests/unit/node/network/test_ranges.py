"""Arithmetic on address ranges."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from bastide.node.network.ranges import closed, subtract

networks = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(
    st.lists(networks, max_size=5),
    st.lists(networks, max_size=5),
    st.integers(0, 2**32 - 1).map(IPv4Address),
)
def test_what_is_left_is_in_the_first_and_not_in_the_second(
    kept: list[IPv4Network], removed: list[IPv4Network], address: IPv4Address
) -> None:
    """Subtraction holds for every address, and the result does not overlap itself."""
    left = subtract(kept, removed)
    wanted = any(address in network for network in kept)
    wanted = wanted and not any(address in network for network in removed)
    assert any(address in network for network in left) == wanted
    assert sum(address in network for network in left) <= 1


def test_metadata_stays_closed_in_an_opened_range() -> None:
    """Opening carrier-grade NAT space does not open the metadata service in it."""
    left = closed([IPv4Network("100.64.0.0/10")])
    assert any(IPv4Address("100.100.100.200") in network for network in left)
    assert not any(IPv4Address("100.64.0.1") in network for network in left)
