"""Names of what a workspace has on the host, made from its address.

Addresses are unique on a host, so the names are too, and the subnet's links share a few prefixes
by which the firewall knows them even when it knows nothing else about them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

PREFIX = "bw"
_BITS_PER_DIGIT = 4


def suffix(address: IPv4Address) -> str:
    """The address in eight hexadecimal digits: `0ac90307` for 10.201.3.7."""
    return f"{int(address):08x}"


def host_end(address: IPv4Address) -> str:
    """Name of the host's end of the link: `bw0ac90307`, ten of at most fifteen characters."""
    return PREFIX + suffix(address)


def address_of(name: str) -> IPv4Address | None:
    """The address a host end is named after; None for any other interface."""
    digits = name.removeprefix(PREFIX)
    if digits == name or len(digits) != 8:
        return None
    try:
        return IPv4Address(int(digits, 16))
    except ValueError:
        return None


def wildcards(subnet: IPv4Network) -> tuple[str, ...]:
    """The patterns which match the host ends of a subnet and no others: `bw0ac9*` for a /16."""
    length = -(-subnet.prefixlen // _BITS_PER_DIGIT) * _BITS_PER_DIGIT
    digits = length // _BITS_PER_DIGIT
    return tuple(
        f"{PREFIX}{suffix(block.network_address)[:digits]}*"
        for block in subnet.subnets(new_prefix=length)
    )
