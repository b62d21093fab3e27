"""A node of its own for each test, on a prepared state directory that tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.cache import own_cache
from tests.host import leaks

from bastide.domain.image import RECIPES
from bastide.domain.machine import MachineSpec, Resources
from bastide.node import cgroups, kernel
from bastide.node.machines.host import Host
from bastide.node.mounts import mounted
from bastide.node.network import Network
from bastide.node.node import Node
from bastide.prepare.bundle import build_bundle
from bastide.prepare.criu import ensure_criu
from bastide.prepare.image import ensure_image
from bastide.prepare.runtime import ensure_runtime
from bastide.settings import Machines, Settings, Storage
from bastide.settings import Network as NetworkSettings

BUSYBOX = Path("/bin/busybox")

Script = Callable[[str], tuple[str, ...]]

# Process 1 of the tests: takes its document, says it is ready, and idles until it is asked to end.
READY = (
    "cat > /dev/null; trap 'exit 0' TERM; echo hello; echo READY; while :; do sleep 60 & wait; done"
)


def script(text: str) -> tuple[str, ...]:
    """The argv of a process 1 that is a shell script, needing nothing of the image."""
    return ("/.bastide/bin/busybox", "sh", "-c", text)


@pytest.fixture(scope="session")
def prepared() -> Path:
    """A state directory with runtime, image and agent bundle, kept from run to run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    cache = own_cache()
    ensure_runtime(cache, print)
    ensure_criu(cache, print)
    ensure_image(RECIPES[0], cache, print)
    build_bundle(cache)
    return cache


@pytest.fixture
def settings(prepared: Path) -> Iterator[Settings]:
    """Settings of a node that shares nothing with others but what was prepared."""
    # not below pytest's own directory, which is closed to others: a container's first process
    # passes through
    base = Path(tempfile.mkdtemp(prefix="node-", dir=prepared))
    base.chmod(0o711)
    state = base / "state"
    (state / "images").mkdir(parents=True)
    (state / "runtime").symlink_to(prepared / "runtime")
    for path in (prepared / "images").glob("*.*"):
        try:
            os.link(path, state / "images" / path.name)
        except OSError:
            shutil.copy2(path, state / "images" / path.name)
    (state / "bundle").symlink_to(prepared / "bundle")
    number = os.getpid()
    yield Settings(
        state_dir=state,
        run_dir=base / "run",
        user="root",
        network=NetworkSettings(
            table=f"bt{number}",
            subnet=IPv4Network((0x0A000000 | ((64 + number % 64) << 16) | 0xC800, 24)),
        ),
        machines=Machines(id_base=1_500_000_000, boot_timeout=20.0),
        storage=Storage(pool="off"),  # a pool stays mounted when its node ends
    )
    assert not mounted(base), "something is still mounted: nothing is removed below it"
    shutil.rmtree(base)


@pytest.fixture
def plain_bundle(settings: Settings) -> None:
    """A bundle with nothing but busybox in place of the agent's."""
    bundle = settings.state_dir / "bundle"
    bundle.unlink()
    (bundle / "test/bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, bundle / "test/bin/busybox")
    (bundle / "current").symlink_to("test")


@pytest.fixture
async def host(settings: Settings) -> AsyncIterator[Host]:
    """The host with its network; whatever a test leaves on it fails the test."""
    network = Network(settings)
    host = Host.of(settings, network)
    settings.run_dir.mkdir()
    kernel.adopt_orphans()
    await host.runc.find()
    await host.criu.find()
    await network.setup()
    before = leaks.traces(settings)
    try:
        yield host
        await leaks.assert_same(settings, before)
    finally:
        host.images.unmount()
        await network.close()
        last = Network(settings)  # the node that was tested may have closed the first
        await last.teardown()
        await last.close()
        cgroups.detect(settings.network.table).remove_parent()


@pytest.fixture
async def node(host: Host) -> AsyncIterator[Node]:
    """An open node with the real agent."""
    async with opened_node(host) as opened:
        yield opened


@pytest.fixture
async def plain_node(host: Host, plain_bundle: None) -> AsyncIterator[Node]:
    """An open node whose machines run the shell script READY as process 1."""
    async with opened_node(replace(host, argv=script(READY))) as opened:
        yield opened


@asynccontextmanager
async def opened_node(host: Host) -> AsyncIterator[Node]:
    """Open a node; afterwards delete its machines and close it."""
    node = Node(host)
    await node.open()
    try:
        yield node
    finally:
        for machine in list(node.fleet.known):
            await node.fleet.delete(machine)
        await node.close()


def spec(number: int = 1, **changes: object) -> MachineSpec:
    """A small machine."""
    small = MachineSpec(
        id=f"ws_{number:08x}",
        image="debian-12",
        resources=Resources(cpus=1, memory_mb=128, disk_mb=128, pids=64),
    )
    return small.model_copy(update=changes)
