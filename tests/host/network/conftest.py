"""Real namespaces, a real firewall, and an internet of documentation addresses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bastide.node.network import Network
from bastide.settings import Settings

from .stage import (
    OPENED,
    POOLED,
    RESOLVER,
    SUBNET,
    TABLE,
    Guest,
    NameServer,
    Stage,
    internet,
    leftovers,
)

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
            "run_dir": directory / "run",
            "network": {
                "subnet": SUBNET,
                "table": TABLE,
                "nameservers": [RESOLVER],
                "allow_private": [f"{OPENED}/32"],
                "connections": 64,
                "outbound_pool": [POOLED],
            },
        }
    )


@pytest.fixture(name="network")
async def _network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(settings_in(tmp_path))
    await network.setup()
    await network.sweep({})
    yield network
    await network.teardown()
    await network.close()
    assert leftovers() == []


@pytest.fixture(name="taps")
def _taps() -> bool:
    """Whether machines are linked by taps, all of them in a drill; a module may say otherwise."""
    return os.environ.get("BASTIDE_TEST_TAPS") == "1"


@pytest.fixture(name="stage")
async def _stage(network: Network, outside: Guest, taps: bool) -> AsyncIterator[Stage]:  # noqa: FBT001
    stage = Stage(network, outside, taps=taps)
    yield stage
    await stage.clear()


@pytest.fixture(scope="session", name="nameserver")
def _nameserver(outside: Guest) -> Iterator[NameServer]:
    server = NameServer(outside)
    yield server
    server.close()


class Resolver:
    """bastide-resolver as a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "BASTIDE_CONFIG": "/nonexistent",
            "BASTIDE_STATE_DIR": str(directory),
            "BASTIDE_RUN_DIR": str(directory / "run"),
            "BASTIDE_NETWORK__SUBNET": SUBNET,
            "BASTIDE_NETWORK__TABLE": TABLE,
            "BASTIDE_NETWORK__NAMESERVERS": f'["{RESOLVER}"]',
        }
        self._log = (directory / "resolver.log").open("w")
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "bastide.resolver"],
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """End it in order."""
        self._log.close()
        self.process.terminate()
        assert self.process.wait(10) == 0


@pytest.fixture(name="resolver")
async def _resolver(
    network: Network, nameserver: NameServer, tmp_path: Path
) -> AsyncIterator[Resolver]:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)  # it is another user that connects
    resolver = Resolver(tmp_path)
    yield resolver
    resolver.close()
