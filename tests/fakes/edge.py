"""An edge that only remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bastide.edge.maps import GatewayEntry, GatewayState


@dataclass
class FakeEdge:
    """The map, by workspace id."""

    entries: dict[str, GatewayEntry] = field(default_factory=dict)

    async def publish(
        self,
        workspace_id: str,
        address: str | None,
        generation: int,
        state: GatewayState,
        raw_token: str | None,
    ) -> None:
        self.entries[workspace_id] = GatewayEntry(
            workspace_id, address, generation, state, raw_token
        )

    async def withdraw(self, workspace_id: str) -> None:
        self.entries.pop(workspace_id, None)

    async def sync(self, entries: Iterable[GatewayEntry]) -> None:
        self.entries = {entry.workspace_id: entry for entry in entries}
