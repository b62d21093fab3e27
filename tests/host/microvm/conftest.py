"""A host on which microVMs can run; all the rest is the node's tests'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.host.node.conftest import (  # noqa: F401 - fixtures
    host,
    node,
    plain_bundle,
    plain_node,
    prepared,
)
from tests.host.node.conftest import settings as settings_of_a_node

from bastide.node.machines.host import Host
from bastide.prepare.kernel import ensure_kernel
from bastide.prepare.qemu import ensure_qemu
from bastide.settings import Settings

ID_BASE = 1_800_000_000 + os.getpid() % 30 * 66_000_000
"""Other host ids than those of tests that run at the same time, in this process or another."""


@pytest.fixture(scope="session")
def grounded(prepared: Path) -> Path:  # noqa: F811
    """The prepared directory, with emulator and guest kernel in it."""
    ensure_qemu(prepared, print)
    ensure_kernel(prepared, print)
    return prepared


nodes_settings = settings_of_a_node


@pytest.fixture
def settings(nodes_settings: Settings) -> Settings:
    """Of a node with host ids of its own, and patience: emulated boots take long on a busy host.

    The test is what faces the network: it may call what the edge may.
    """
    machines = nodes_settings.machines.model_copy(
        update={"boot_timeout": 120.0, "id_base": ID_BASE}
    )
    return nodes_settings.model_copy(update={"edge_user": "root", "machines": machines})


@pytest.fixture
async def ground(grounded: Path, host: Host) -> Host:  # noqa: F811
    """A host that knows what microVMs need."""
    host.images.digest("debian-12")
    await host.microvm.find()
    assert host.microvm.lacking is None
    return host
