"""A host on which microVMs can run; all the rest is the node's tests'."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.host.node.conftest import (  # noqa: F401 - fixtures
    host,
    node,
    plain_bundle,
    plain_node,
    prepared,
    settings,
)

from bastide.node.machines.host import Host
from bastide.prepare.kernel import ensure_kernel
from bastide.prepare.qemu import ensure_qemu


@pytest.fixture(scope="session")
def grounded(prepared: Path) -> Path:  # noqa: F811
    """The prepared directory, with emulator and guest kernel in it."""
    ensure_qemu(prepared, print)
    ensure_kernel(prepared, print)
    return prepared


@pytest.fixture
async def ground(grounded: Path, host: Host) -> Host:  # noqa: F811
    """A host that knows what microVMs need."""
    host.images.digest("debian-12")
    await host.microvm.find()
    assert host.microvm.lacking is None
    return host
