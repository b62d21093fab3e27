"""Which name servers workspaces get."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bastide.node.network.resolver import choose_nameservers

SUBNET = IPv4Network("10.211.0.0/16")


def _file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_configured_ones_come_first(tmp_path: Path) -> None:
    """Settings win over the host's file."""
    host = _file(tmp_path / "resolv.conf", "nameserver 192.168.1.1")
    assert choose_nameservers(("203.0.113.53",), SUBNET, [host]) == (IPv4Address("203.0.113.53"),)


def test_a_loopback_resolver_is_looked_behind(tmp_path: Path) -> None:
    """With systemd-resolved's stub in the first file the servers of the second are taken."""
    stub = _file(tmp_path / "stub", "# x", "nameserver 127.0.0.53", "options edns0")
    real = _file(tmp_path / "real", "nameserver 192.168.1.1", "nameserver fe80::1")
    assert choose_nameservers((), SUBNET, [stub, real]) == (IPv4Address("192.168.1.1"),)


def test_unreachable_servers_are_never_taken(tmp_path: Path) -> None:
    """Loopback, link-local, IPv6 and the workspaces' own subnet; no file at all is no server."""
    host = _file(
        tmp_path / "resolv.conf",
        *(f"nameserver {server}" for server in ("169.254.169.254", "::1", "10.211.0.1", "x")),
        "nameserver",
    )
    assert choose_nameservers((), SUBNET, [host, tmp_path / "missing"]) == ()


def test_at_most_three_and_each_once(tmp_path: Path) -> None:
    """Resolvers read three lines."""
    host = _file(tmp_path / "resolv.conf", *(f"nameserver 192.0.2.{n}" for n in (1, 1, 2, 3, 4)))
    assert list(map(str, choose_nameservers((), SUBNET, [host]))) == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
