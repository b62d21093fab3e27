"""A control plane for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.api.workspaces.cloud import Cloud, World

from bastide.settings import Settings


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Settings of an empty server, and fakes outside of it."""
    return World(Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[Cloud]:
    """A running control plane."""
    async with world.cloud() as running:
        yield running
