"""Edge and bastion are told of a workspace, each whatever becomes of the other."""

from __future__ import annotations

from typing import cast

import pytest
from tests.fakes.bastion import FakeBastion
from tests.fakes.edge import FakeEdge

from bastide.bastion.doors import Door
from bastide.services.gateway import Gateway
from bastide.store.database import Database
from bastide.store.tables import Workspace


class FullDisk(FakeBastion):
    """A bastion whose file cannot be written."""

    async def publish(self, door: Door) -> None:
        raise OSError(28, "No space left on device")

    async def withdraw(self, workspace: str) -> None:
        raise OSError(28, "No space left on device")


async def test_the_edge_is_closed_though_the_bastion_cannot_be_told() -> None:
    """Access that is switched off ends at the gateway even when the bastion's file is stuck."""
    edge = FakeEdge()
    gateway = Gateway(cast("Database", None), edge, "5" * 64, FullDisk())
    row = Workspace(
        id="ws_" + "a" * 32, runtime_enabled=False, generation=1, network={}, ssh={},
        address="10.201.0.2", raw_token=None, observed_state="running", ready=True,
    )  # fmt: skip
    with pytest.raises(OSError, match="No space"):
        await gateway.publish(row)
    assert edge.entries[row.id].state == "disabled"
    with pytest.raises(OSError, match="No space"):
        await gateway.publish(row, gone=True)
    assert row.id not in edge.entries
