"""Elements of nftables sets, written to the kernel in its own words (netlink).

libnftables looks at the whole table before it adds an element to it. This does not, so a change
costs the same however many workspaces there are.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bastide.node.errors import NotReady
from bastide.node.network.ruleset import Element, Part

_NETLINK_NETFILTER = 12
_INET = 1  # NFPROTO_INET
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 0x10, 0x11
_ADD, _DELETE = _NFTABLES << 8 | 12, _NFTABLES << 8 | 14
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NESTED = 0x8000
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT = 1
_KEY, _DATA, _TIMEOUT = 1, 2, 4
_VALUE = 1
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NAME_BYTES = 16
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """An element that comes or goes; `seconds`: how long it stays in a timed set."""

    element: Element
    add: bool = True
    seconds: int = 0


class SetElements:
    """A netlink socket of the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def change(self, table: str, changes: Iterable[Change]) -> None:
        """Make the changes, in order, as one transaction: all of them or none.

        Adding what is there changes nothing.

        Raises:
            NotReady: the kernel refused, such as to remove what is not there.
        """
        messages = [_element(table, change) for change in changes]
        if not messages:
            return
        parts = [_message(_BEGIN, _REQUEST, 0, _NFTABLES, b"")]
        for number, (kind, flags, body) in enumerate(messages, 1):
            # The answer to the last one comes only when everything has been done.
            ack = _ACK if number == len(messages) else 0
            parts.append(_message(kind, flags | ack, number, 0, body))
        parts.append(_message(_END, _REQUEST, len(messages) + 1, _NFTABLES, b""))
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise NotReady(f"the firewall did not take a change: {error.strerror}") from error
        self._check()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _check(self) -> None:
        """The kernel has answered by now: all is well, or some messages were wrong."""
        failed = 0
        answered = False
        while True:
            try:
                data = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                raise NotReady(f"the firewall's answer was lost: {error.strerror}") from error
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                if kind == _ERROR:
                    answered = True
                    (code,) = struct.unpack_from("=i", data, offset + _HEADER.size)
                    failed = failed or -code
                offset += max(_HEADER.size, (length + 3) & ~3)
        if failed or not answered:
            reason = os.strerror(failed) if failed else "no answer"
            raise NotReady(f"the firewall refused a change: {reason}")


def _element(table: str, change: Change) -> tuple[int, int, bytes]:
    """Kind, flags and content of the message for one element."""
    element = change.element
    content = _attribute(_KEY | _NESTED, _attribute(_VALUE, packed(element.parts)))
    if change.add and element.value is not None:
        content += _attribute(_DATA | _NESTED, _attribute(_VALUE, element.value.packed))
    if change.add and change.seconds:
        content += _attribute(_TIMEOUT, struct.pack("!Q", change.seconds * 1000))
    body = (
        _attribute(_TABLE, table.encode() + b"\0")
        + _attribute(_SET, element.name.encode() + b"\0")
        + _attribute(_ELEMENTS | _NESTED, _attribute(_ELEMENT | _NESTED, content))
    )
    if change.add:
        return _ADD, _REQUEST | _CREATE, body
    return _DELETE, _REQUEST, body


def packed(parts: tuple[Part, ...]) -> bytes:
    """A key as the kernel has it, every part padded to four bytes; a range is its first address."""
    key = b""
    for part in parts:
        if isinstance(part, IPv4Network):
            key += part.network_address.packed
        elif isinstance(part, IPv4Address):
            key += part.packed
        elif isinstance(part, int):
            key += struct.pack("!Hxx", part)
        else:
            key += part.encode().ljust(_NAME_BYTES, b"\0")
    return key


def _message(kind: int, flags: int, number: int, resource: int, body: bytes) -> bytes:
    head = struct.pack("!BBH", _INET if body else 0, 0, resource)
    return _HEADER.pack(_HEADER.size + len(head) + len(body), kind, flags, number, 0) + head + body


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)
