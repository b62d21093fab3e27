"""What the firewall costs traffic: throughput, packets lost while policies change, floods.

Run as root: `python bench/firewall.py [--json] [--save] [--seconds N] [--turns N]`. Needs iperf3.
It plays in a network namespace of its own, so that no other table of this host counts, with the
workspaces in further ones; nothing leaves this machine. Figures:

- `bare_mbps`, `routed_mbps`, `firewall_mbps`: one TCP stream between two namespaces, through one
  veth pair, through two and the host's routing without any rules, and through the same with all
  rules, taken in turns;
- `firewall_share`: of each turn, what is left of the bare pair's rate with all rules;
- `lost_packets`: of a steady flow between two workspaces while a third one's policy is changed
  200 times a second, with 2000 policies loaded (`flow_packets` were sent);
- `changes_per_second` that were really made;
- `rebuild_ms`, `rebuild_lost_packets`: the same while the whole table is written anew, as the
  node's sweep does, again and again;
- `quiet_ms`, `flooded_ms`: an exchange between two workspaces, without and with a third one that
  floods connections, packets and names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from apart import apart
from network import neighbours
from report import Samples, finish, options

from bastide.domain.network import NetworkPolicy
from bastide.node.network import Network
from bastide.node.network.firewall import Firewall
from bastide.settings import Settings

LOAD, CHANGES = 2000, 200
PACE = 0.001
OPEN, FLOW, ECHO = 5201, 5202, 5203
LISTEN = f"""
import socket, threading
def echo():
    server = socket.create_server(("0.0.0.0", {ECHO}))
    while True:
        one, _ = server.accept()
        one.sendall(one.recv(100)); one.close()
threading.Thread(target=echo, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", {FLOW}))
print(flush=True)
while True:
    data, peer = udp.recvfrom(2000)
    udp.sendto(data, peer)
"""
SEND = """
import json, socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(1)
udp.connect((sys.argv[1], int(sys.argv[2])))
end = time.monotonic() + float(sys.argv[3])
sent = lost = 0
while time.monotonic() < end:
    sent += 1
    udp.send(sent.to_bytes(4, "big"))
    try:
        while int.from_bytes(udp.recv(100), "big") != sent:
            pass
    except TimeoutError:
        lost += 1
    time.sleep(float(sys.argv[4]))
print(json.dumps([sent, lost]))
"""
ASK = """
import json, socket, sys, time
times = []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as tcp:
            tcp.sendall(b"hello")
            tcp.recv(100)
        times.append((time.perf_counter() - start) * 1000)
    except OSError:
        pass
print(json.dumps(times))
"""
FLOOD = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(flush=True)
while True:
    for _ in range(50):
        for target in ((sys.argv[1], 9), (sys.argv[2], 9)):
            try:
                udp.sendto(bytes(64), target)
            except OSError:
                pass
        try:
            names.sendto(bytes(40), (sys.argv[3], 53))
        except OSError:
            pass
    tcp = socket.socket()
    tcp.setblocking(False)
    try:
        tcp.connect((sys.argv[1], 9))
    except OSError:
        pass
    tcp.close()
"""


class Machine:
    """A namespace with a process that answers."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-I", "-c", LISTEN], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A program in the namespace."""
        inside = ["nsenter", "--net", "--target", str(self.process.pid)]
        return subprocess.Popen(
            [*inside, *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def python(self, script: str, *args: object) -> subprocess.Popen[str]:
        """A script in the namespace."""
        return self.start(sys.executable, "-I", "-c", script, *map(str, args))

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


async def said(process: subprocess.Popen[str]) -> Any:
    """What a program printed as JSON."""
    out, _ = await asyncio.to_thread(process.communicate)
    return json.loads(out)


async def throughput(client: Machine, server: Machine, address: str, seconds: float) -> float:
    """Megabits a second of one TCP stream."""
    listening = server.start("iperf3", "-s", "-1", "-p", str(OPEN))
    await asyncio.sleep(0.3)
    found = await said(
        client.start("iperf3", "-c", address, "-p", str(OPEN), "-t", str(seconds), "-J")
    )
    listening.wait(10)
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e6


def bare(first: Machine, second: Machine) -> str:
    """Join two namespaces by a veth pair; the second one's address."""
    ends = [f"netns {machine.process.pid}" for machine in (first, second)]
    line = f"link add pair0 {ends[0]} type veth peer name pair0 {ends[1]}"
    subprocess.run(["ip", "-batch", "-"], input=line, text=True, check=True)
    for machine, address in ((first, "192.0.2.1"), (second, "192.0.2.2")):
        inside = ["nsenter", "--net", "--target", str(machine.process.pid), "ip", "-batch", "-"]
        commands = f"addr add {address}/24 dev pair0\nlink set pair0 up\n"
        subprocess.run(inside, input=commands, text=True, check=True)
    return "192.0.2.2"


async def run(seconds: float, turns: int) -> dict[str, Samples]:
    """All measurements."""
    results: dict[str, Samples] = {}
    machines = [Machine() for _ in range(3)]
    client, server, third = machines
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        settings = Settings.model_validate(
            {
                "state_dir": place,
                "run_dir": place,
                "network": {"subnet": "10.212.0.0/16", "table": "bastide_bench"},
            }
        )
        network = Network(settings)
        firewall = network._firewall  # noqa: SLF001 - neighbours without links, and no rules at all
        try:
            await network.setup()
            await firewall.rebuild(neighbours(LOAD))
            names = ("ws_00000001", "ws_00000002", "ws_00000003")
            addresses = [str(network.reserve(name)) for name in names]
            dark = NetworkPolicy(allow_internet=False)
            opened = NetworkPolicy(links=(addresses[0],), ingress_ports=(OPEN, FLOW, ECHO))
            for name, machine, policy in zip(names, machines, (dark, opened, dark), strict=True):
                await network.attach(name, machine.process.pid, policy)
            policies = {
                **neighbours(LOAD),
                **dict(zip(map(IPv4Address, addresses), (dark, opened, dark), strict=True)),
            }
            direct = bare(client, server)
            rates: dict[str, list[float]] = {
                "bare_mbps": [],
                "routed_mbps": [],
                "firewall_mbps": [],
            }
            for _ in range(turns):
                rates["bare_mbps"].append(await throughput(client, server, direct, seconds))
                await firewall.teardown()
                rate = await throughput(client, server, addresses[1], seconds)
                rates["routed_mbps"].append(rate)
                await firewall.rebuild(policies)
                rate = await throughput(client, server, addresses[1], seconds)
                rates["firewall_mbps"].append(rate)
            for key, values in rates.items():
                results[key] = Samples(values, len(values), "Mbit/s")
            pairs = zip(rates["firewall_mbps"], rates["bare_mbps"], strict=True)
            shares = [100 * walled / alone for walled, alone in pairs]
            results["firewall_share"] = Samples(shares, len(shares), "%")
            results |= await _changes(network, client, names[2], addresses[1], seconds * 3)
            results |= await _rebuilds(firewall, client, policies, addresses[1], seconds)
            results |= await _flood(client, third, addresses, str(network.gateway), turns)
        finally:
            await network.teardown()
            await network.close()
            for machine in machines:
                machine.close()
    return results


async def _changes(
    network: Network, client: Machine, changed: str, target: str, seconds: float
) -> dict[str, Samples]:
    """A flow between two while a third one's policy changes."""
    flow = client.python(SEND, target, FLOW, seconds, PACE)
    policies = [NetworkPolicy(egress=(f"198.51.100.{number}",)) for number in range(2)]
    times: list[float] = []
    start = time.perf_counter()
    while flow.poll() is None:
        due = start + len(times) / CHANGES
        await asyncio.sleep(max(0, due - time.perf_counter()))
        began = time.perf_counter()
        await network.apply(changed, policies[len(times) % 2])
        times.append((time.perf_counter() - began) * 1000)
    elapsed = time.perf_counter() - start
    sent, lost = await said(flow)
    return {
        "apply_ms": Samples(times, len(times)),
        "changes_per_second": Samples([len(times) / elapsed], 1, "1/s"),
        "flow_packets": Samples([sent], 1, "packets"),
        "lost_packets": Samples([lost], 1, "packets"),
    }


async def _rebuilds(
    firewall: Firewall,
    client: Machine,
    policies: dict[IPv4Address, NetworkPolicy],
    target: str,
    seconds: float,
) -> dict[str, Samples]:
    """A flow between two while everybody's rules are written anew."""
    flow = client.python(SEND, target, FLOW, seconds, PACE)
    times: list[float] = []
    while flow.poll() is None:
        began = time.perf_counter()
        await firewall.rebuild(policies)
        times.append((time.perf_counter() - began) * 1000)
    _, lost = await said(flow)
    return {
        "rebuild_ms": Samples(times, len(times)),
        "rebuild_lost_packets": Samples([lost], 1, "packets"),
    }


async def _flood(
    client: Machine, third: Machine, addresses: list[str], gateway: str, turns: int
) -> dict[str, Samples]:
    """Exchanges of two, without and with a third one that floods, in turns."""
    count = 500
    quiet: list[float] = []
    loud: list[float] = []
    for _ in range(turns):
        quiet += await said(client.python(ASK, addresses[1], ECHO, count))
        flood = third.python(FLOOD, addresses[1], "192.0.2.9", gateway)
        try:
            assert flood.stdout is not None
            flood.stdout.readline()
            loud += await said(client.python(ASK, addresses[1], ECHO, count))
        finally:
            flood.kill()
            flood.wait()
    tried = count * turns
    return {"quiet_ms": Samples(quiet, tried), "flooded_ms": Samples(loud, tried)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--seconds", type=float, default=3, help="of each stream")
    parser.add_argument("--turns", type=int, default=5, help="streams of each kind")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/firewall.py needs root: it makes network namespaces")
    if shutil.which("iperf3") is None:
        sys.exit("bench/firewall.py needs iperf3: apt-get install iperf3")
    apart()
    results = asyncio.run(run(arguments.seconds, arguments.turns))
    finish("firewall", results, arguments)


if __name__ == "__main__":
    main()
