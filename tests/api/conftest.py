"""A fresh API for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.api.stage import Stage, staged


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """The application, started."""
    monkeypatch.setenv("BASTIDE_CONFIG", str(tmp_path / "none.toml"))
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def anyone(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://api.test"
    ) as client:
        yield client
