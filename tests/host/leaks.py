"""What one node has on the host, listed: two listings that differ are a leak.

Everything is found by what sets this node apart (its directories, its nft table, its ids), so
that other nodes and tests on the same host do not matter.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

from bastide.node import loop
from bastide.node.cgroups import detect
from bastide.node.mounts import mounted
from bastide.node.network import chains
from bastide.settings import Settings

Traces = dict[str, set[str]]
_DEADLINE = 10.0
_REMEMBERED = {chains.ACTIVE, chains.CONNECTIONS, chains.LOGGED, chains.QUESTIONS, chains.REFUSED}


def traces(settings: Settings) -> Traces:
    """Mounts, loop devices, processes, cgroups, links, rules and files of one node."""
    state, run = settings.state_dir.resolve(), settings.run_dir.resolve()
    return {
        "mounts": {str(path) for path in mounted(run)},
        "loops": {str(path) for path in loop.devices(state).values()},
        "processes": _processes(settings),
        "cgroups": detect(settings.network.table).known(),
        "links": _links(settings),
        "rules": _elements(settings),
        "files": {
            str(path)
            for directory in (
                *(state / "machines", state / "disks", state / "pool" / "disks"),
                *(state / "snapshots", state / "pool" / "snapshots"),
                *(run / "machines", run / "runc"),
            )
            if directory.is_dir()
            for path in directory.iterdir()
        },
    }


async def assert_same(settings: Settings, before: Traces) -> None:
    """Fail unless the node's traces become those of `before` again within a few seconds."""
    deadline = time.monotonic() + _DEADLINE
    while True:
        now = traces(settings)
        leaked = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not leaked:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left on the host: {leaked}")
        await asyncio.sleep(0.05)


def _processes(settings: Settings) -> set[str]:
    """Processes with a user id of the node's ranges, zombies among them."""
    found = set()
    first = settings.machines.id_base
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        uid = int(lines["Uid"].split()[0])
        if first <= uid < first + 1000 * 65_536:
            found.add(f"{status.parent.name} {lines['Name']} {lines['State']}")
    return found


def _links(settings: Settings) -> set[str]:
    """Routes of single addresses in the node's subnet: each belongs to a link."""
    output = subprocess.run(
        ["ip", "-json", "route", "show", "root", str(settings.network.subnet)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {
        f"{route['dst']} {route.get('dev')}"
        for route in json.loads(output or "[]")
        if "/" not in route["dst"]
    }


def _elements(settings: Settings) -> set[str]:
    """Chains and set elements of the node's table that name an address of its subnet.

    What the table itself remembers of packets is no leak: it goes at the next sweep.
    """
    done = subprocess.run(
        ["nft", "list", "table", "inet", settings.network.table],
        capture_output=True,
        text=True,
        check=False,
    )
    prefix = str(settings.network.subnet.network_address).rsplit(".", 1)[0] + "."
    lines, memory = [], False
    for line in done.stdout.splitlines():
        words = line.split()
        if words[:1] in (["set"], ["chain"], ["map"]):
            memory = words[1] in _REMEMBERED
        if not memory:
            lines.append(line)
    return {
        word
        for line in lines
        for word in line.replace(",", " ").split()
        if word.startswith(prefix) and word not in {str(settings.network.subnet), f"{prefix}1"}
    }
