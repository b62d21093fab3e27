"""The edge on a stage of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.host.edge.stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """HAProxy running, both workspaces and the api up, both workspaces open."""
    stage = Stage()
    try:
        async with stage.one, stage.two, stage.api:
            stage.settings.api_socket.chmod(0o666)
            await stage.start_haproxy()
            await stage.open()
            yield stage
    finally:
        await stage.close()


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway."""
    async with httpx.AsyncClient(base_url=stage.gateway, timeout=20, trust_env=False) as client:
        yield client
