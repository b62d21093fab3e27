"""Kill -9 amid creations and deletions: each ends, nothing leaks, nothing is left."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.cloud.batch import Batch, codes
from tests.cloud.cloud import Cloud
from tests.cloud.processes import kill, pids, until_whole
from tests.host.leaks import assert_same, traces

from bastide.client import Bastide

pytestmark = pytest.mark.cloud

MACHINES = 10


@pytest.fixture
def clean(cloud: Cloud) -> Iterator[None]:
    """Nothing of the test may be left on the host when it has deleted what it made."""
    before = traces(cloud.settings)
    leases, chains = leased(cloud), tables(cloud)
    yield
    asyncio.run(assert_same(cloud.settings, before))
    assert leased(cloud) <= leases
    assert tables(cloud) <= chains
    assert not held_namespaces(cloud)


def leased(cloud: Cloud) -> set[str]:
    """Workspaces that the node has an address for."""
    leases = cloud.settings.state_dir / "network" / "leases.json"
    return set(re.findall(r"ws_[0-9a-f]+", leases.read_text())) if leases.exists() else set()


def tables(cloud: Cloud) -> set[str]:
    """Chains, sets and maps of the cloud's table, and what is in them."""
    shown = subprocess.run(
        ["nft", "--stateless", "list", "table", "inet", cloud.settings.network.table],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.strip() for line in shown.splitlines()}


def held_namespaces(cloud: Cloud) -> list[str]:
    """Namespaces that a process of the cloud keeps alive by a descriptor."""
    found = []
    for name, process in pids(cloud).items():
        for item in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                target = str(item.readlink())
            except FileNotFoundError:  # a connection that has ended
                continue
            if target.startswith(("net:[", "user:[", "mnt:[", "pid:[")):
                found.append(f"{name} {target}")
    return found


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "victims", [("node",), ("api",), ("edge",), ("supervisor", "node", "api", "edge")], ids="+".join
)
def test_killed_amid_creations(cloud: Cloud, client: Bastide, victims: tuple[str, ...]) -> None:
    """Each of ten creations ends ready or failed; a failed one is retried to its end."""
    batch = Batch(client, MACHINES)
    try:
        batch.create(after=lambda: until_whole(cloud, kill(cloud, victims)))
        for workspace, found in batch.settled().items():
            if found.state == "failed":
                assert found.provisioning is not None
                assert found.provisioning.error is not None
                assert found.provisioning.error.message
                batch.retry(workspace)
        assert {found.state for found in batch.settled().values()} == {"ready"}
        assert codes(batch.exec("true")) == {0}
    finally:
        batch.delete()


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("victims", [("node",), ("api",)], ids="+".join)
def test_killed_amid_deletions(cloud: Cloud, client: Bastide, victims: tuple[str, ...]) -> None:
    """Every deletion that was accepted is carried out, and leaves nothing."""
    batch = Batch(client, MACHINES)
    batch.create()
    batch.settled()
    for workspace in batch.ids:
        client.workspaces.delete(workspace)
    until_whole(cloud, kill(cloud, victims))
    batch.delete()


@pytest.mark.usefixtures("clean")
def test_killed_again_and_again(cloud: Cloud, client: Bastide) -> None:
    """Node and api die in turn while ten are made and deleted: all is well in the end."""
    batch = Batch(client, MACHINES)
    try:
        for victims in (("node",), ("api",)):
            batch.create(after=partial(kill, cloud, victims))
            assert len(batch.settled()) == MACHINES
        assert {found.state for found in batch.settled().values()} <= {"ready", "failed"}
    finally:
        batch.delete()
