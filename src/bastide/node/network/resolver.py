"""Which name servers workspaces use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bastide.node.network.ranges import NEVER

# systemd-resolved puts itself (127.0.0.53) in the first and the true servers in the second.
HOST_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def choose_nameservers(
    configured: Sequence[str], subnet: IPv4Network, files: Iterable[Path] = HOST_FILES
) -> tuple[IPv4Address, ...]:
    """The configured name servers, or else those of the host that a workspace can reach.

    A server on loopback, link-local (where clouds keep metadata) or inside the workspaces' own
    subnet is never taken. At most three: resolvers read no more. Empty when there is none.
    """
    if configured:
        return _reachable(map(IPv4Address, configured), subnet)
    for file in files:
        found = _reachable(_listed(file), subnet)
        if found:
            return found
    return ()


def _listed(file: Path) -> list[IPv4Address]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    servers = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(IPv4Address(words[1]))
            except ValueError:
                continue  # IPv6: workspaces have none
    return servers


def _reachable(servers: Iterable[IPv4Address], subnet: IPv4Network) -> tuple[IPv4Address, ...]:
    closed = (*NEVER, subnet)
    usable = [server for server in servers if not any(server in network for network in closed)]
    return tuple(dict.fromkeys(usable))[:3]
