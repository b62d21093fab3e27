"""Rows of archives. Those of deleted workspaces are there too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.archive import SHOWN, STORED, ArchiveState
from bastide.domain.operation import UNFINISHED
from bastide.store.results import changed
from bastide.store.tables import Archive, Operation


class Archives:
    """Archives within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, archive: Archive) -> Archive:
        """Add one; `Duplicate` if the workspace has that version."""
        self._session.add(archive)
        await self._session.flush()
        return archive

    async def get(self, archive_id: str) -> Archive | None:
        """By id."""
        return await self._session.get(Archive, archive_id, populate_existing=True)

    async def find(self, workspace_id: str, version: str) -> Archive | None:
        """One version, in whatever state."""
        return await self._session.scalar(
            select(Archive)
            .where(Archive.workspace_id == workspace_id, Archive.version == version)
            .execution_options(populate_existing=True)
        )

    async def of(
        self, workspace_id: str, states: Collection[ArchiveState] = SHOWN
    ) -> list[Archive]:
        """Those of a workspace, newest first."""
        found = await self._session.scalars(
            select(Archive)
            .where(Archive.workspace_id == workspace_id, Archive.state.in_(states))
            .order_by(Archive.created_at.desc(), Archive.id.desc())
        )
        return list(found)

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
