"""A real depot that fails when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bastide.depot.contract import DepotError, Draft
from bastide.depot.directory import DirectoryDepot


class FailingDepot(DirectoryDepot):
    """A directory; while `down`, every call fails."""

    down: bool = False

    @asynccontextmanager
    async def draft(self, name: str) -> AsyncIterator[Draft]:
        self.check()
        async with super().draft(name) as draft:
            yield _FailingDraft(self, draft)

    async def size(self, name: str) -> int | None:
        self.check()
        return await super().size(name)

    async def remove(self, name: str) -> None:
        self.check()
        await super().remove(name)

    def check(self) -> None:
        if self.down:
            raise DepotError("the fake depot is down")


class _FailingDraft(Draft):
    def __init__(self, depot: FailingDepot, draft: Draft) -> None:
        self._depot = depot
        self._draft = draft

    async def write(self, data: bytes) -> None:
        self._depot.check()
        await self._draft.write(data)

    async def publish(self) -> None:
        self._depot.check()
        await self._draft.publish()
