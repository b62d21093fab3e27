"""A bastion that only remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bastide.bastion.doors import Door


@dataclass
class FakeBastion:
    """The doors, by workspace id."""

    doors: dict[str, Door] = field(default_factory=dict)

    async def publish(self, door: Door) -> None:
        self.doors[door.workspace] = door

    async def withdraw(self, workspace: str) -> None:
        self.doors.pop(workspace, None)

    async def sync(self, doors: Iterable[Door]) -> None:
        self.doors = {door.workspace: door for door in doors}
