"""Packets the firewall tells of, from the kernel's netlink log (nfnetlink_log).

Small and bounded: the firewall sends at most a few packets a second for each workspace, the
kernel drops what nobody reads, and only the first bytes of a packet are looked at.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1
_REQUEST = 1  # NLM_F_REQUEST
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT = 1, 2, 4
_BIND = 1
_COPY_PACKET = 2
_BYTES = 64
_PAYLOAD = 9  # NFULA_PAYLOAD
_WAIT = 10  # hundredths of a second the kernel collects packets before it sends them
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}
_MOST_READ = 64
"""Messages read at a time, so that a flood leaves the loop to others."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The head of a packet a workspace sent."""

    source: IPv4Address
    destination: IPv4Address
    protocol: str
    port: int | None


class PacketLog:
    """Reads one group of the log; `hear` is called for each packet."""

    def __init__(self, group: int, hear: Callable[[Seen], None]) -> None:
        self._group = group
        self._hear = hear
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Take the group; harmless when it is taken. Waits for the kernel.

        Raises:
            OSError: the kernel has no such log, or another process reads the group.
        """
        if self._socket is not None:
            return
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            netlink.bind((0, 0))
            netlink.settimeout(2)
            # copy range in network order, mode, padding
            mode = struct.pack("!IBx", _BYTES, _COPY_PACKET)
            for attribute, value in (
                (_CFG_CMD, struct.pack("=B", _BIND)),
                (_CFG_MODE, mode),
                (_CFG_TIMEOUT, struct.pack("!I", _WAIT)),
            ):
                self._configure(netlink, attribute, value)
            netlink.setblocking(False)
        except BaseException:
            netlink.close()
            raise
        self._socket = netlink

    def listen(self) -> None:
        """Hear from now on, in the running loop."""
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _configure(self, netlink: socket.socket, attribute: int, value: bytes) -> None:
        body = struct.pack("!BBH", 0, 0, self._group) + _attribute(attribute, value)
        flags = _REQUEST | 4  # NLM_F_ACK
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _CONFIG, flags, 1, 0) + body)
        answer = netlink.recv(4096)
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code != 0:
            raise OSError(-code, f"the log group {self._group} cannot be read")

    def _read(self) -> None:
        for _ in range(_MOST_READ):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more came than was read; the rest is counted elsewhere
                continue
            for seen in packets(data):
                self._hear(seen)


def packets(data: bytes) -> Iterator[Seen]:
    """The packets in what the log's socket gave; what cannot be read is left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        if kind == _PACKET:
            payload = _payload(data[offset + _HEADER.size + 4 : offset + length])
            seen = None if payload is None else head_of(payload)
            if seen is not None:
                yield seen
        offset += (length + 3) & ~3


def head_of(packet: bytes) -> Seen | None:
    """Addresses, protocol and port of an IPv4 packet; None if it is none."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    number, start = packet[9], (packet[0] & 0x0F) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
    port = None
    if number in (6, 17) and not fragment and len(packet) >= start + 4:
        port = int.from_bytes(packet[start + 2 : start + 4], "big")
    return Seen(
        source=IPv4Address(packet[12:16]),
        destination=IPv4Address(packet[16:20]),
        protocol=_PROTOCOLS.get(number, str(number)),
        port=port,
    )


def _payload(attributes: bytes) -> bytes | None:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind & 0x3FFF == _PAYLOAD:
            return attributes[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return None


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)
