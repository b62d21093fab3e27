"""What a workspace that floods costs another one's requests, in a whole cloud.

    eval "$(bastide env)"; python bench/flood.py [--json] [--save] [--requests N] [--turns N]

Two workspaces are made, and deleted at the end. The loud one may not reach the internet, so that
nothing it sends leaves this machine. Figures, of the quiet one:

- `request_quiet`: a request to its runtime through the gateway, while the other does nothing;
- `request_busy`: while the other only calculates, as fast as it may;
- `request_connections`, `request_packets`, `request_names`: while it floods with connections,
  with datagrams (to the quiet one, the gateway and the outside), with questions for names;
- `name_quiet`, `name_busy`, …: a question for a name, asked and timed within the quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from report import Samples, finish, options

from bastide.client import Bastide, Output, Runtime

KINDS = ("quiet", "busy", "connections", "packets", "names")
OUTSIDE = "203.0.113.9"  # of the documentation, and refused by the loud one's policy
LOUD = """
import itertools, socket, sys
kind, quiet, gateway, outside = sys.argv[1:]
print("begun", flush=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
question = b"\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5other\\7example\\0\\0\\1\\0\\1"
targets = itertools.cycle([(quiet, 9990), (gateway, 9), (outside, 443)])
for number in itertools.count():
    try:
        if kind == "connections":
            with socket.socket() as tcp:
                tcp.setblocking(False)
                tcp.connect(next(targets))
        elif kind == "packets":
            udp.sendto(bytes(64), next(targets))
        elif kind == "names":
            udp.sendto(bytes([number % 256]) + question, (gateway, 53))
    except OSError:
        pass
"""
NAMES = """
import json, socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
udp.connect((sys.argv[1], 53))
times = []
for number in range(int(sys.argv[2])):
    time.sleep(0.012)  # below the rate a workspace may ask at
    head = number.to_bytes(2, "big")
    start = time.perf_counter()
    udp.send(head + b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5other\\7example\\0\\0\\1\\0\\1")
    try:
        while udp.recv(512)[:2] != head:
            pass
        times.append((time.perf_counter() - start) * 1000)
    except TimeoutError:
        pass
print(json.dumps(times))
"""


@contextmanager
def flooding(runtime: Runtime, kind: str, *targets: str) -> Iterator[None]:
    """The loud workspace at work, until the block ends."""
    if kind == "quiet":
        yield
        return
    with runtime.exec.stream(["python3", "-c", LOUD, kind, *targets]) as events:
        task = ""
        for event in events:
            task = task or getattr(event, "task_id", "")
            if isinstance(event, Output):
                break
        try:
            yield
        finally:
            runtime.exec.kill(task)


def requests(runtime: Runtime, count: int) -> list[float]:
    """Milliseconds of requests, one after the other."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        runtime.exec.list()
        times.append((time.perf_counter() - start) * 1000)
    return times


def run(client: Bastide, count: int, turns: int) -> dict[str, Samples]:
    """All figures; the kinds take turns, so that what else happens on the host hits all alike."""
    times: dict[str, list[float]] = {
        f"{what}_{kind}": [] for what in ("request", "name") for kind in KINDS
    }
    policies = ({"egress": ["listed.example"]}, {"allow_internet": False})
    made: list[str] = []
    try:
        for policy in policies:
            config = {"network_config": policy}
            workspace = client.workspaces.create("debian-12", memory_mb=256, config=config)
            made += [workspace.id]
        quiet, loud = (client.workspaces.runtime(one) for one in made)
        shown = client.workspaces.network.get(made[0])
        address, gateway = shown.ip or "", shown.gateway or ""
        requests(quiet, 20)
        for _ in range(turns):
            for kind in KINDS:
                with flooding(loud, kind, address, gateway, OUTSIDE):
                    times[f"request_{kind}"] += requests(quiet, count)
                    asked = quiet.exec.run(["python3", "-c", NAMES, gateway, str(count)])
                    times[f"name_{kind}"] += json.loads(asked.check().stdout)
    finally:
        for one in made:
            client.workspaces.delete(one)
    return {name: Samples(values, count * turns) for name, values in times.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--requests", type=int, default=200, help="of each kind in each turn")
    parser.add_argument("--turns", type=int, default=4, help="how often each kind is taken")
    given = parser.parse_args()
    if "BASTIDE_CLIENT_ID" not in os.environ:
        sys.exit('no cloud is named: eval "$(bastide env)" first')
    with Bastide() as client:
        results = run(client, given.requests, given.turns)
    finish("flood", results, given)


if __name__ == "__main__":
    main()
