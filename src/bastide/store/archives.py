"""Rows of archives. Those of deleted workspaces are there too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.archive import SHOWN, STORED, ArchiveState
from bastide.domain.operation import UNFINISHED
from bastide.store.results import changed
from bastide.store.tables import Archive, Operation, Workspace
from bastide.store.workspaces import Filter


class Archives:
    """Archives within one transaction.

    With `hold` nobody else holds or changes what was found until the transaction ends.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, archive: Archive) -> Archive:
        """Add one; `Duplicate` if the workspace has that version."""
        self._session.add(archive)
        await self._session.flush()
        return archive

    async def get(self, archive_id: str, *, hold: bool = False) -> Archive | None:
        """By id."""
        return await self._session.get(
            Archive, archive_id, populate_existing=True, with_for_update=hold
        )

    async def find(self, workspace_id: str, version: str, *, hold: bool = False) -> Archive | None:
        """One version, in whatever state."""
        wanted = select(Archive).where(
            Archive.workspace_id == workspace_id, Archive.version == version
        )
        return await self._session.scalar(_held(wanted, hold=hold))

    async def of(
        self,
        workspace_id: str,
        states: Collection[ArchiveState] = SHOWN,
        *,
        hold: bool = False,
    ) -> list[Archive]:
        """Those of a workspace, newest first."""
        wanted = (
            select(Archive)
            .where(Archive.workspace_id == workspace_id, Archive.state.in_(states))
            .order_by(Archive.created_at.desc(), Archive.id.desc())
        )
        return list(await self._session.scalars(_held(wanted, hold=hold)))

    async def page(
        self, which: Filter, *, limit: int, offset: int
    ) -> list[tuple[Archive, Workspace]]:
        """Those of these workspaces, deleted ones too, newest first; each with its workspace."""
        found = await self._session.execute(
            select(Archive, Workspace)
            .join(Workspace, Archive.workspace_id == Workspace.id)
            .where(*which.conditions(deleted=True), Archive.state.in_(SHOWN))
            .order_by(Archive.created_at.desc(), Archive.id.desc())
            .limit(limit)
            .offset(offset)
        )
        return [(archive, workspace) for archive, workspace in found]

    async def count(self, which: Filter) -> int:
        """How many `page` would find in all."""
        found = await self._session.scalar(
            select(func.count())
            .select_from(Archive)
            .join(Workspace, Archive.workspace_id == Workspace.id)
            .where(*which.conditions(deleted=True), Archive.state.in_(SHOWN))
        )
        return found or 0

    async def versions(self, workspace_id: str) -> list[str]:
        """Every version that is taken."""
        found = await self._session.scalars(
            select(Archive.version).where(Archive.workspace_id == workspace_id)
        )
        return list(found)

    async def stored_bytes(self, account_id: str) -> int:
        """Bytes that the archives of an account take."""
        found = await self._session.scalar(
            select(func.coalesce(func.sum(Archive.size_bytes), 0)).where(
                Archive.account_id == account_id, Archive.state.in_(STORED)
            )
        )
        return int(found or 0)

    async def update(
        self, archive_id: str, values: Mapping[str, Any], *, state: ArchiveState
    ) -> bool:
        """Set columns while it is in `state`; False if nothing was changed."""
        return await changed(
            self._session,
            update(Archive)
            .where(Archive.id == archive_id, Archive.state == state)
            .values(dict(values)),
        )

    async def remove(self, archive_id: str) -> bool:
        """Forget one; its file must be gone."""
        return await changed(self._session, delete(Archive).where(Archive.id == archive_id))

    async def left(self, before: datetime, limit: int) -> list[Archive]:
        """Those nobody works on any more though they are not settled, from before `before`.

        Creations whose operation ended otherwise, and removals that were not done.
        """
        working = (
            select(Operation.id)
            .where(Operation.id == Archive.operation_id)
            .where((Operation.state.in_(UNFINISHED)) | (Operation.completed_at >= before))
            .exists()
        )
        unsettled = (ArchiveState.CREATING, ArchiveState.REMOVING)
        found = await self._session.scalars(
            select(Archive)
            .where(Archive.state.in_(unsettled), Archive.created_at < before, ~working)
            .limit(limit)
        )
        return list(found)

    async def prune_failed(self, before: datetime) -> None:
        """Forget failed ones that were begun earlier."""
        await self._session.execute(
            delete(Archive).where(Archive.state == ArchiveState.FAILED, Archive.created_at < before)
        )


def _held(wanted: Select[Archive], *, hold: bool) -> Select[Archive]:
    """As it is now. On SQLite a transaction that writes is alone anyway."""
    fresh = wanted.execution_options(populate_existing=True)
    return fresh.with_for_update() if hold else fresh
