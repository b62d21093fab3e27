"""What the network of the host must have."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bastide.doctor.finding import Finding, fail, ok
from bastide.settings import Settings
from bastide.supervisor.record import Record, record_path


def firewall() -> Finding:
    """Whether nftables answers."""
    try:
        done = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return fail("firewall", "nft is not installed", "apt-get install nftables")
    if done.returncode != 0:
        return fail(
            "firewall",
            f"nftables does not work: {done.stderr.strip()[:200]}",
            "run as root on a kernel with nf_tables",
        )
    return ok("firewall", "nftables answers")


def forwarding() -> Finding:
    """Whether packets are forwarded; the node switches it on when it starts."""
    on = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    if on:
        return ok("forwarding", "IPv4 forwarding is on")
    return ok("forwarding", "IPv4 forwarding is off; the node switches it on")


def subnet(settings: Settings) -> Finding:
    """Whether the workspaces' network is used by nothing else on this host."""
    ours = settings.network.subnet
    for device, network in _routes():
        # Workspaces have routes of 32 bits inside our subnet; anything else there is not ours.
        if device != "lo" and network.prefixlen not in (0, 32) and network.overlaps(ours):
            return fail(
                "subnet",
                f"{ours} overlaps {network}, which this host reaches by {device}",
                "choose another private range: network.subnet (BASTIDE_NETWORK__SUBNET)",
            )
    return ok("subnet", f"{ours} is free")


def ports(settings: Settings) -> Iterator[Finding]:
    """Whether each port is free, or held by the service of this server that listens there."""
    record = Record.read(record_path(settings.run_dir))
    for name, service, address in (
        ("api", "edge", settings.listen.api),
        ("gateway", "edge", settings.listen.gateway),
        ("ssh", "bastion", settings.listen.ssh),
    ):
        entry = record.entry(service) if record else None
        ours = entry is not None and entry.process is not None and entry.process.alive
        label = f"listen.{name}"
        trouble = _trouble(address)
        if trouble is None:
            yield ok(label, f"{address} is free")
        elif ours:
            yield ok(label, f"{address} is served by this server")
        else:
            yield fail(
                label,
                f"{address} cannot be used: {trouble}",
                f"end what uses it (ss -ltnp), or set {label} to another",
            )


def _trouble(address: str) -> str | None:
    """Why a port cannot be listened on, or None."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            probe.listen()
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:
            return str(error)
    return None


def _routes() -> Iterator[tuple[str, IPv4Network]]:
    """Device and destination of each IPv4 route of the main table."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        destination = IPv4Address(struct.pack("=I", int(fields[1], 16)))
        mask = IPv4Address(struct.pack("=I", int(fields[7], 16)))
        # The kernel writes `*` for routes that lead nowhere, ours among them.
        if fields[0] != "*":
            yield fields[0], IPv4Network((int(destination), int(mask).bit_count()))
