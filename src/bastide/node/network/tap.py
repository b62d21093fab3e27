"""The link of a workspace that has a kernel of its own: a tap whose other end is a descriptor.

On the host it is the same interface as the host's end of a veth, with the same name, settings,
routes and rules; what differs is that frames come from a descriptor. A guest makes its frames as
it likes, so nothing here depends on what it says: the neighbour is fixed, IPv6 and VLANs have no
taker on the interface, and the firewall looks at the source of every packet.
"""

from __future__ import annotations

import fcntl
import os
import struct
from ipaddress import IPv4Address
from pathlib import Path

from bastide.node.errors import NotReady
from bastide.node.network.names import host_end

_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_TUNSETVNETHDRSZ = 0x400454D8
_HEADER = 12
"""Bytes before each frame, as virtio has them. An emulator says so itself, but only once: a tap
that is filled again has to know."""

_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x1000, 0x4000
_FLAGS = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
_REQUEST = struct.Struct("16sH22x")


def opened() -> int:
    """A descriptor that `fill` makes the machine's end of a link.

    Raises:
        NotReady: the host has no taps.
    """
    try:
        return os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotReady(f"{_TUN} cannot be opened: {error.strerror}") from error


def fill(descriptor: int, address: IPv4Address) -> None:
    """Make the interface of `address`, whose other end is `descriptor`.

    It goes with the last who holds the descriptor, as a veth goes with its namespace. A descriptor
    whose interface was deleted can be given a new one.

    Raises:
        NotReady: the kernel refuses.
    """
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _REQUEST.pack(host_end(address).encode(), _FLAGS))
        fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", _HEADER))
    except OSError as error:
        raise NotReady(f"the kernel refused a tap for {address}: {error.strerror}") from error
