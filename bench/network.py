"""How long the network of a machine takes: attach, first connection, apply, detach, sweep.

Run as root: `python bench/network.py [--json] [--rounds N]`. Uses a table and a subnet of its
own and removes them; nothing leaves this machine. Each figure is taken with one workspace's
rules loaded and with 500.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bastide.domain.machine import CONTROL_PORT
from bastide.domain.network import NetworkPolicy
from bastide.node.network import Network, rules
from bastide.node.network.nft import Nft
from bastide.settings import Settings

LOADS = (1, 500)
POLICY = NetworkPolicy(public_access=True, ingress_ports=(80, 443, 9990))
OTHER = NetworkPolicy(public_access=True, ingress_ports=(80, 3000), egress=("198.51.100.0/24",))
LISTEN = (
    "import socket\n"
    f"server = socket.create_server(('0.0.0.0', {CONTROL_PORT}))\n"
    "print(flush=True)\n"
    "while True:\n"
    "    server.accept()[0].close()\n"
)


class Samples:
    """Times in milliseconds by metric, and how many tries failed."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.failed: dict[str, int] = {}

    @contextmanager
    def measure(self, metric: str) -> Iterator[None]:
        """Time a block; an `OSError` in it is a failed try."""
        self.times.setdefault(metric, [])
        self.failed.setdefault(metric, 0)
        start = time.perf_counter()
        try:
            yield
        except OSError:
            self.failed[metric] += 1
        else:
            self.times[metric].append((time.perf_counter() - start) * 1000)

    def summary(self) -> dict[str, dict[str, Any]]:
        """The figures, one object per metric."""
        return {metric: self._figures(metric) for metric in self.times}

    def _figures(self, metric: str) -> dict[str, Any]:
        times, failed = self.times[metric], self.failed[metric]
        cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else []
        return {
            **{f"p{p}": round(cuts[p - 1], 2) if cuts else None for p in (50, 95, 99)},
            "n": len(times) + failed,
            "success_rate": len(times) / (len(times) + failed),
            "unit": "ms",
        }


async def run(rounds: int) -> dict[str, dict[str, Any]]:
    """All measurements."""
    samples = Samples()
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings.model_validate(
            {
                "state_dir": Path(directory),
                "network": {"subnet": "10.212.0.0/16", "table": "bastide_bench"},
            }
        )
        network = Network(settings)
        nft = Nft()
        try:
            await network.setup()
            for load in LOADS:
                plan = rules.Plan("bastide_bench", network.subnet)
                first = IPv4Address("10.212.128.1")
                neighbours = {first + number: POLICY for number in range(load - 1)}
                nft.run("\n".join(rules.rebuild_commands(neighbours, plan)))
                for number in range(rounds):
                    await _round(network, samples, f"ws_{number:08x}", load)
            await _sweep(network, samples, LOADS[-1], rounds)
        finally:
            await network.teardown()
            network.close()
            nft.close()
    return samples.summary()


async def _round(network: Network, samples: Samples, name: str, load: int) -> None:
    address = str(network.reserve(name))
    process = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-I", "-c", LISTEN],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with samples.measure(f"network_attach_{load}"):
            await network.attach(name, process.pid, POLICY)
        with (
            samples.measure(f"network_first_connect_{load}"),
            socket.create_connection((address, CONTROL_PORT), timeout=0.5),
        ):
            pass
        with samples.measure(f"network_apply_{load}"):
            await network.apply(name, OTHER)
        with samples.measure(f"network_detach_{load}"):
            await network.detach(name)
        network.release(name)
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


async def _sweep(network: Network, samples: Samples, load: int, rounds: int) -> None:
    """A sweep that writes `load` workspaces' rules; none of them has a link here."""
    plan = rules.Plan("bastide_bench", network.subnet)
    policies = {IPv4Address("10.212.128.1") + number: POLICY for number in range(load)}
    nft = Nft()
    try:
        for _ in range(max(3, rounds // 10)):
            with samples.measure(f"network_rebuild_{load}"):
                nft.run("\n".join(rules.rebuild_commands(policies, plan)))
    finally:
        nft.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--rounds", type=int, default=50, help="machines per load")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/network.py needs root: it makes network namespaces")
    figures = asyncio.run(run(arguments.rounds))
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{'metric':<28}{'p50':>9}{'p95':>9}{'p99':>9}{'n':>6}{'success':>9}  unit")
    for metric, row in figures.items():
        numbers = "".join(f"{row[name]!s:>9}" for name in ("p50", "p95", "p99"))
        print(f"{metric:<28}{numbers}{row['n']:>6}{row['success_rate']:>9.2f}  {row['unit']}")


if __name__ == "__main__":
    main()
