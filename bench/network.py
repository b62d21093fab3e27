"""How long the network of a machine takes: attach, first connection, apply, detach, sweep.

Run as root: `python bench/network.py [--json] [--save] [--rounds N]`. It plays in a network
namespace of its own; nothing leaves this machine. Each figure is taken with one workspace's
policy loaded and with 2000.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

from apart import apart
from report import Samples, finish, options

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.network import Network
from bastide.node.network.firewall import Firewall
from bastide.settings import Settings

LOADS = (1, 2000)
POLICY = NetworkPolicy(public_access=True, ingress_ports=(80, 443, 9990))
OTHER = NetworkPolicy(public_access=True, ingress_ports=(80, 3000), egress=("198.51.100.0/24",))
LISTEN = (
    "import socket\n"
    f"server = socket.create_server(('0.0.0.0', {CONTROL_PORT}))\n"
    "print(flush=True)\n"
    "while True:\n"
    "    server.accept()[0].close()\n"
)


class Clock:
    """Times in milliseconds by metric, and how often each was tried."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.tried: dict[str, int] = {}

    @contextmanager
    def measure(self, metric: str) -> Iterator[None]:
        """Time a block; an `OSError` in it is a failed try."""
        self.tried[metric] = self.tried.get(metric, 0) + 1
        times = self.times.setdefault(metric, [])
        start = time.perf_counter()
        with suppress(OSError):
            yield
            times.append((time.perf_counter() - start) * 1000)

    def results(self) -> dict[str, Samples]:
        """The figures of each metric."""
        return {name: Samples(times, self.tried[name]) for name, times in self.times.items()}


async def run(rounds: int) -> dict[str, Samples]:
    """All measurements."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings.model_validate(
            {
                "state_dir": Path(directory),
                "run_dir": Path(directory),
                "network": {"subnet": "10.212.0.0/16", "table": "bastide_bench"},
            }
        )
        network = Network(settings)
        firewall = network._firewall  # noqa: SLF001 - neighbours without links
        try:
            await network.setup()
            for load in LOADS:
                await firewall.rebuild(neighbours(load - 1))
                for number in range(rounds):
                    await _round(network, clock, f"ws_{number:08x}", load)
            await _sweep(firewall, clock, LOADS[-1], rounds)
        finally:
            await network.teardown()
            await network.close()
    return clock.results()


def neighbours(count: int) -> dict[IPv4Address, NetworkPolicy]:
    """Policies of workspaces that are not there, each with a range of its own."""
    first, outside = IPv4Address("10.212.128.1"), IPv4Address("192.0.2.0")
    return {
        first + number: POLICY.model_copy(update={"egress": (str(outside + number % 256),)})
        for number in range(count)
    }


def _machine() -> subprocess.Popen[bytes]:
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-I", "-c", LISTEN]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


async def _round(network: Network, clock: Clock, name: str, load: int) -> None:
    address = str(network.reserve(name))
    process = _machine()
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with clock.measure(f"network_attach_{load}"):
            await network.attach(name, process.pid, POLICY)
        with (
            clock.measure(f"network_first_connect_{load}"),
            socket.create_connection((address, CONTROL_PORT), timeout=0.5),
        ):
            pass
        for policy in (OTHER, POLICY, OTHER, POLICY):
            with clock.measure(f"network_apply_{load}"):
                await network.apply(name, policy)
        with clock.measure(f"network_detach_{load}"):
            await network.detach(name)
        network.release(name)
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


async def _sweep(firewall: Firewall, clock: Clock, load: int, rounds: int) -> None:
    """Writing the whole table anew, as the sweep does."""
    for _ in range(max(3, rounds // 10)):
        with clock.measure(f"network_rebuild_{load}"):
            await firewall.rebuild(neighbours(load))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--rounds", type=int, default=50, help="machines per load")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/network.py needs root: it makes network namespaces")
    apart()
    results = asyncio.run(run(arguments.rounds))
    finish("network", results, arguments)


if __name__ == "__main__":
    main()
