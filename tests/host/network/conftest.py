"""Real namespaces, a real firewall, and an internet of documentation addresses."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bastide.node.network import Network
from bastide.settings import Settings

from .stage import OPENED, RESOLVER, SUBNET, TABLE, Guest, Stage, internet, leftovers

API_USER, EDGE_USER = "daemon", "nobody"  # any two users every host has


@pytest.fixture(scope="session", name="outside")
def _outside() -> Iterator[Guest]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with internet() as guest:
        yield guest


def settings_in(directory: Path) -> Settings:
    """Settings with a table, a subnet and users of the tests' own."""
    return Settings.model_validate(
        {
            "state_dir": directory,
            "user": API_USER,
            "edge_user": EDGE_USER,
            "network": {
                "subnet": SUBNET,
                "table": TABLE,
                "nameservers": [RESOLVER],
                "allow_private": [f"{OPENED}/32"],
                "connections": 64,
            },
        }
    )


@pytest.fixture(name="network")
async def _network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(settings_in(tmp_path))
    await network.setup()
    yield network
    await network.teardown()
    network.close()
    assert leftovers() == []


@pytest.fixture(name="stage")
async def _stage(network: Network, outside: Guest) -> AsyncIterator[Stage]:
    stage = Stage(network, outside)
    yield stage
    await stage.clear()
