"""The name servers that are asked on behalf of workspaces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message

HOST_FILE = Path("/etc/resolv.conf")
MOST_SERVERS = 3
PATIENCE = 1.5
"""Seconds one server has for its answer. Programs ask again after five."""
PAYLOAD = 1232
"""Bytes of the largest datagram taken, small enough to pass everywhere in one piece."""
_LOOK_AGAIN = 5.0


class NoAnswer(Exception):  # noqa: N818 - reads as what it is
    """No server gave an answer that can be used; the text says why."""


class Upstream:
    """The configured servers, or those of the host, read again when they change.

    Unlike workspaces, this process can ask servers on the host itself.
    """

    def __init__(
        self, configured: Sequence[str], subnet: IPv4Network, file: Path = HOST_FILE
    ) -> None:
        self._configured = tuple(configured)
        self._subnet = subnet
        self._file = file
        self._read_at = float("-inf")
        self._found: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """At most three addresses, first choice first."""
        if time.monotonic() >= self._read_at + _LOOK_AGAIN:
            self._read_at = time.monotonic()
            self._found = usable(self._configured or listed(self._file), self._subnet)
        return self._found

    async def ask(self, query: dns.message.Message, port: int = 53) -> dns.message.Message:
        """The answer of the first server that has one; long ones are fetched over TCP.

        Raises:
            NoAnswer: there are no servers, or none answers.
        """
        reason = "this server has no name server; set network.nameservers"
        for server in self.servers:
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(
                    query, server, timeout=PATIENCE, port=port, ignore_unexpected=True
                )
            except (dns.exception.DNSException, OSError, EOFError) as error:
                reason = f"{server} did not answer: {type(error).__name__}"
            else:
                return answer
        raise NoAnswer(reason)


def listed(file: Path) -> list[str]:
    """The servers a resolv.conf names."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    return [word[1] for word in words if len(word) >= 2 and word[0] == "nameserver"]


def usable(servers: Iterable[str], subnet: IPv4Network) -> tuple[str, ...]:
    """Those that can be asked: addresses, none of them a workspace's or our own."""
    found = []
    for server in servers:
        try:
            address = ip_address(server.partition("%")[0])
        except ValueError:
            continue
        ours = isinstance(address, IPv4Address) and address in subnet
        if not ours and not address.is_unspecified and not address.is_multicast:
            found.append(server)
    return tuple(dict.fromkeys(found))[:MOST_SERVERS]
