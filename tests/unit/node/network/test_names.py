"""Names made from addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from bastide.node.network.names import address_of, host_end, wildcards


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_a_host_end_fits_the_kernel_and_tells_its_address(address: IPv4Address) -> None:
    """Every address has its own interface name of at most 15 characters."""
    assert len(host_end(address)) <= 15
    assert address_of(host_end(address)) == address


def test_other_interfaces_have_no_address() -> None:
    """Names that are not ours are not mistaken for ours."""
    for name in ("eth0", "bw", "bwxyzxyzx", "bw0ac9030", "bw0ac903071", "br0ac90307", "lo"):
        assert address_of(name) is None


@given(st.integers(8, 24), st.integers(0, 2**32 - 1))
def test_wildcards_cover_the_subnet_and_no_more(length: int, number: int) -> None:
    """The patterns match the subnet's names and those of no other address."""
    subnet = IPv4Network((int(IPv4Address("10.0.0.0")) | (number & 0xFFFFFF), length), strict=False)

    def covered(address: IPv4Address) -> bool:
        return any(host_end(address).startswith(mark[:-1]) for mark in wildcards(subnet))

    assert covered(subnet[0])
    assert covered(subnet[-1])
    assert not covered(subnet[0] - 1)
    assert not covered(subnet[-1] + 1)
