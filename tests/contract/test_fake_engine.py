"""The fake engines keep the Engine contract, so that what is tested with them holds."""

from __future__ import annotations

import pytest
from tests.contract.engine import EngineContract
from tests.fakes.engine import FakeEngine

from bastide.domain.machine import MachineSpec, Resources
from bastide.engine.contract import Engine


class TestFakeEngine(EngineContract):
    """The normal and the slow fake."""

    @pytest.fixture(params=[0.0, 0.01], ids=["normal", "slow"])
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        """An empty fake."""
        return FakeEngine(delay=request.param, can_snapshot=True)

    @pytest.fixture
    def spec(self) -> MachineSpec:
        """A small machine."""
        return MachineSpec(
            id="ws_00000001",
            image="debian-12",
            resources=Resources(cpus=1, memory_mb=128, disk_mb=64),
        )
