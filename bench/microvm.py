"""MicroVMs on a node of its own: cold and warm starts by stage, pause, snapshot, and memory.

Run as root with `python bench/microvm.py [--json] [--count N] [--state DIR]`; DIR is a prepared
state directory (`bastide prepare`), of which only what was prepared is used. No cloud is needed and
none is touched. Each row begins with what ran the guest: `kvm` (hardware) or `tcg` (emulated).

`to_command` is from the request to start until the first command has answered; `overhead_mb` is
what the emulator takes beyond the guest's own memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from time import perf_counter

import httpx
from report import Samples, finish, options

from bastide.domain.machine import Driver, MachineSpec, Resources, RuntimeAccess, SnapshotAfter
from bastide.domain.network import NetworkPolicy
from bastide.node import cgroups, kernel
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.host import Host
from bastide.node.machines.microvm.memory import ram_in_use
from bastide.node.network import Network
from bastide.node.node import Node
from bastide.settings import Machines, Settings, Storage
from bastide.settings import Network as NetworkSettings

MIB = 1024 * 1024
TOKEN = "be" * 32
SPEC = MachineSpec(
    id="ws_be0c4000",
    image="debian-12",
    resources=Resources(cpus=1, memory_mb=256, disk_mb=512),
    network=NetworkPolicy(public_access=True, ingress_ports=(9990,)),
    runtime=RuntimeAccess(enabled=True, token=TOKEN),
    driver=Driver.MICROVM,
)
Told = dict[str, list[float]]


@asynccontextmanager
async def node_of(prepared: Path, base: Path, *, warm: int) -> AsyncIterator[Node]:
    """A node with what was prepared, in `base`."""
    state = base / "state"
    state.mkdir(exist_ok=True)
    for name in ("runtime", "bundle", "images"):
        if not (state / name).exists():
            (state / name).symlink_to(prepared / name)
    settings = Settings(
        state_dir=state,
        run_dir=base / "run",
        user="root",
        edge_user="root",
        network=NetworkSettings(table="btbench", subnet=IPv4Network("10.187.0.0/24")),
        machines=Machines(id_base=1_400_000_000, boot_timeout=120.0, warm_starts=warm),
        storage=Storage(pool="off"),
    )
    settings.run_dir.mkdir(exist_ok=True)
    kernel.adopt_orphans()
    network = Network(settings)
    host = Host.of(settings, network)
    node = Node(host)
    await node.open()
    try:
        yield node
    finally:
        for machine in list(node.fleet.known):
            await node.fleet.delete(machine)
        await node.close()
        host.images.unmount()
        last = Network(settings)
        await last.teardown()
        await last.close()
        cgroups.detect(settings.network.table).remove_parent()


async def command(node: Node) -> None:
    """Run one inside, and wait for its answer."""
    address = node.host.network.address(SPEC.id)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.post(
            f"http://{address}:9990/exec",
            json={"cmd": ["true"]},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
    answer.raise_for_status()


async def timed(work: Awaitable[object]) -> float:
    """Milliseconds."""
    begin = perf_counter()
    await work
    return (perf_counter() - begin) * 1000


async def start(node: Node, kind: str, told: Told) -> None:
    """Start it and run a command; every stage is told."""
    begin = perf_counter()
    status = await node.power.start(SPEC)
    await command(node)
    told[f"{kind}.to_command"].append((perf_counter() - begin) * 1000)
    for stage, milliseconds in status.timings.items():
        told[f"{kind}.{stage}"].append(milliseconds)


async def cold(prepared: Path, base: Path, count: int, told: Told) -> None:
    """Start with no saved guest."""
    async with node_of(prepared, base, warm=0) as node:
        await node.fleet.create(SPEC)
        for _ in range(count):
            await start(node, "cold", told)
            told["stop"].append(await timed(node.power.stop(SPEC.id, 30)))


async def warm(prepared: Path, base: Path, count: int, told: Told) -> str:
    """Start from a saved guest, and what a running one can do; what has run them."""
    async with node_of(prepared, base, warm=1) as node:
        await node.fleet.create(SPEC)
        await start(node, "saving", defaultdict(list))
        for _ in range(count):
            await node.power.stop(SPEC.id, 30)
            await start(node, "warm", told)
        memory(node, told)
        for _ in range(count):
            told["pause"].append(await timed(node.power.pause(SPEC.id)))
            told["resume"].append(await timed(node.power.resume(SPEC.id)))
            told["snapshot"].append(await timed(node.captures.take(SPEC.id, SnapshotAfter.RESUME)))
            begin = perf_counter()
            await node.captures.bring_back(SPEC)
            await command(node)
            told["restore.to_command"].append((perf_counter() - begin) * 1000)
        return node.host.microvm.accelerator.value


def memory(node: Node, told: Told) -> None:
    """What the emulator takes on the host, with and without the guest's own."""
    directory = BootDirectory(node.host.machines_dir / SPEC.id)
    record = directory.recorded()
    if record is None:
        return
    guest = ram_in_use(record.pid, SPEC.resources.memory_mb * MIB)
    for line in Path(f"/proc/{record.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            whole = int(line.split()[1]) * 1024
            told["guest_mb"].append(guest / MIB)
            told["overhead_mb"].append((whole - guest) / MIB)


async def measure(prepared: Path, base: Path, count: int) -> dict[str, Samples]:
    """All of it, on nodes in `base`."""
    told: Told = defaultdict(list)
    await cold(prepared, base, count, told)
    accelerator = await warm(prepared, base, count, told)
    return {
        f"{accelerator}.{name}": Samples(
            values, len(values), "MiB" if name.endswith("_mb") else "ms"
        )
        for name, values in told.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--count", type=int, default=5, help="of each")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/bastide"))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("this needs root")
    prepared = arguments.state.resolve()
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=prepared))
    base.chmod(0o711)
    try:
        results = asyncio.run(measure(prepared, base, arguments.count))
    finally:
        shutil.rmtree(base)
    finish("microvm", results, arguments)


if __name__ == "__main__":
    main()
