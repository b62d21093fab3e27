"""Rows of workspaces. A deleted one is found by no method unless that method says so."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    String,
    Table,
    Update,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.machine import MachineState
from bastide.domain.operation import UNFINISHED, OperationKind
from bastide.store.operations import TELLS, telling_among
from bastide.store.results import changed
from bastide.store.tables import Operation, Workspace

_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)

_ROWS = cast("Table", Workspace.__table__)
# Built once: every request asks them, and building a statement takes longer than running it.
_BY_ID = (
    select(Workspace)
    .where(Workspace.deleted_at.is_(None), Workspace.id == bindparam("id"))
    .execution_options(populate_existing=True)
)
_OWN = (Workspace.account_id == bindparam("account"), Workspace.deleted_at.is_(None))
_BY_SLUG = select(Workspace.id).where(*_OWN, Workspace.slug == bindparam("reference"))
# By ids alone: with a slug beside them SQLite would go through all that the account ever had.
_BY_REFERENCE = (
    select(Workspace)
    .where(*_OWN)
    .where(or_(Workspace.id == bindparam("reference"), Workspace.id == _BY_SLUG.scalar_subquery()))
    .execution_options(populate_existing=True)
)
_TOLD = (
    _BY_REFERENCE.add_columns(Operation)
    .outerjoin(Operation, TELLS)
    .order_by(Operation.created_at.desc(), Operation.id.desc())
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which workspaces a list holds; None means any.

    `busy` selects by the kind of the unfinished operation; an empty collection selects those
    without one. `ids` limits the list to these.
    """

    account_id: str | None = None
    namespace: str | None = None
    ids: Collection[str] | None = None
    mode: Mode | None = None
    desired: Collection[DesiredState] | None = None
    observed: Collection[MachineState] | None = None
    busy: Collection[OperationKind] | None = None

    def conditions(self, *, deleted: bool = False) -> list[ColumnElement[bool]]:
        """As SQL, deleted workspaces left out unless `deleted`."""
        found: list[ColumnElement[bool]] = [] if deleted else [Workspace.deleted_at.is_(None)]
        if self.account_id is not None:
            found.append(Workspace.account_id == self.account_id)
        if self.namespace is not None:
            found.append(Workspace.namespace == self.namespace)
        if self.ids is not None:
            found.append(Workspace.id.in_(self.ids))
        if self.mode is not None:
            found.append(Workspace.mode == self.mode)
        if self.desired is not None:
            found.append(Workspace.desired_state.in_(self.desired))
        if self.observed is not None:
            found.append(Workspace.observed_state.in_(self.observed))
        if self.busy is not None:
            unfinished = (
                exists()
                .where(Operation.workspace_id == Workspace.id)
                .where(Operation.state.in_(UNFINISHED))
            )
            found.append(
                unfinished.where(Operation.kind.in_(self.busy)) if self.busy else ~unfinished
            )
        return found


@lru_cache(maxsize=256)
def _update(names: tuple[str, ...], expected: tuple[str, ...], empty: frozenset[str]) -> Update:
    """The statement that sets columns; building it takes longer than running it.

    Of the table and not of its class: nobody's objects are to be brought up to date.
    """
    columns = _ROWS.c
    statement = update(_ROWS).where(columns.id == bindparam("id_of"), columns.deleted_at.is_(None))
    for name in expected:
        column = columns[name]
        statement = statement.where(
            column.is_(None) if name in empty else column == bindparam(f"old_{name}")
        )
    return statement.values({name: bindparam(f"new_{name}") for name in names})


def _meant(found: Sequence[Workspace], reference: str) -> Workspace | None:
    """Of those that a reference finds, that which has it for its id, else for its slug."""
    return next((row for row in found if row.id == reference), next(iter(found), None))


class Workspaces:
    """Workspaces within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, workspace: Workspace) -> Workspace:
        """Add a workspace; `Duplicate` at commit or flush if slug or idempotency key is taken."""
        self._session.add(workspace)
        await self._session.flush()
        return workspace

    async def get(self, workspace_id: str) -> Workspace | None:
        """By id, whoever owns it."""
        return await self._session.scalar(_BY_ID, {"id": workspace_id})

    async def find(self, account_id: str, reference: str) -> Workspace | None:
        """By id or slug within an account; an id wins over an equal slug.

        A reference that neither can be finds nothing, without asking the database.
        """
        if not _REFERENCE.fullmatch(reference):
            return None
        values = {"account": account_id, "reference": reference}
        found = await self._session.scalars(_BY_REFERENCE, values)
        return _meant(found.all(), reference)

    async def told(
        self, account_id: str, reference: str
    ) -> tuple[Workspace | None, Operation | None, Operation | None]:
        """Like `find`, with its newest operation and its newest creation; both may be the same."""
        if not _REFERENCE.fullmatch(reference):
            return None, None, None
        values = {"account": account_id, "reference": reference}
        found = (await self._session.execute(_TOLD, values)).all()
        row = _meant([each[0] for each in found], reference)
        tells = [each[1] for each in found if each[0] is row and each[1] is not None]
        return row, *telling_among(tells)

    async def find_deleted(self, account_id: str, workspace_id: str) -> Workspace | None:
        """By id within an account, if it is deleted; its archives may still be there."""
        if not _REFERENCE.fullmatch(workspace_id):
            return None
        return await self._session.scalar(
            select(Workspace).where(
                Workspace.account_id == account_id,
                Workspace.id == workspace_id,
                Workspace.deleted_at.is_not(None),
            )
        )

    async def by_idempotency_key(self, account_id: str, key: str) -> Workspace | None:
        """The workspace an earlier request with this key made."""
        return await self._one(Workspace.account_id == account_id, Workspace.idempotency_key == key)

    async def deleted_among(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that were workspaces here and are deleted."""
        if not ids:
            return set()
        found = await self._session.scalars(
            select(Workspace.id).where(Workspace.id.in_(ids), Workspace.deleted_at.is_not(None))
        )
        return set(found)

    async def mentioning(self, text: str) -> list[Workspace]:
        """Those whose network column holds this text, as a whole string."""
        found = await self._session.scalars(
            select(Workspace)
            .where(Workspace.deleted_at.is_(None))
            .where(Workspace.network.cast(String).contains(f'"{text}"', autoescape=True))
            .execution_options(populate_existing=True)
        )
        return list(found)

    async def count(self, which: Filter) -> int:
        """How many there are."""
        found = await self._session.scalar(
            select(func.count()).select_from(Workspace).where(*which.conditions())
        )
        return found or 0

    async def page(
        self, which: Filter, *, limit: int | None = None, offset: int = 0
    ) -> list[Workspace]:
        """Some of them, newest first; `limit` None is all."""
        found = await self._session.scalars(
            select(Workspace)
            .where(*which.conditions())
            .order_by(Workspace.created_at.desc(), Workspace.id.desc())
            .limit(limit)
            .offset(offset)
        )
        return list(found)

    async def archived(self, which: Filter, *, limit: int, offset: int) -> list[Workspace]:
        """Those whose machine was removed for good, newest first; removed records included."""
        found = await self._session.scalars(
            select(Workspace)
            .where(*which.conditions(deleted=True), Workspace.archived_at.is_not(None))
            .order_by(Workspace.archived_at.desc(), Workspace.id.desc())
            .limit(limit)
            .offset(offset)
        )
        return list(found)

    async def count_archived(self, which: Filter) -> int:
        """How many `archived` holds in all."""
        found = await self._session.scalar(
            select(func.count())
            .select_from(Workspace)
            .where(*which.conditions(deleted=True), Workspace.archived_at.is_not(None))
        )
        return found or 0

    async def expired(self, at: datetime, limit: int) -> list[str]:
        """Ids of those whose lease ended before `at`, the longest ended first.

        Those with an unfinished operation are left out: they must wait and keep no one waiting.
        """
        free = Filter(busy=()).conditions()
        found = await self._session.scalars(
            select(Workspace.id)
            .where(*free, Workspace.lease_expires_at <= at)
            .order_by(Workspace.lease_expires_at)
            .limit(limit)
        )
        return list(found)

    async def totals(self, which: Filter) -> tuple[int, float, int, int, int]:
        """Count, and sums of cores, MiB of memory, MiB of disk and MiB of snapshots."""
        row = (
            await self._session.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(Workspace.cpus), 0.0),
                    func.coalesce(func.sum(Workspace.memory_mb), 0),
                    func.coalesce(func.sum(Workspace.disk_mb), 0),
                    func.coalesce(func.sum(Workspace.snapshot_mb), 0),
                ).where(*which.conditions())
            )
        ).one()
        return row[0], float(row[1]), int(row[2]), int(row[3]), int(row[4])

    async def update(
        self,
        workspace_id: str,
        values: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> bool:
        """Set columns, provided those of `expected` still hold; False if nothing was changed.

        `updated_at` is set too. A pipeline first calls `Operations.apply_guarded` in the same
        transaction, and gives up when that returns False.
        """
        expected = expected or {}
        given = {"updated_at": now(), **values}
        counted = {
            name: given.pop(name) for name in values if isinstance(values[name], ClauseElement)
        }
        empty = frozenset(name for name, value in expected.items() if value is None)
        statement = _update(tuple(given), tuple(expected), empty)
        if counted:
            statement = statement.values(counted)
        told = {f"new_{name}": value for name, value in given.items()}
        told |= {f"old_{name}": expected[name] for name in expected if name not in empty}
        return await changed(self._session, statement, {"id_of": workspace_id, **told})

    async def put(self, row: Workspace, values: Mapping[str, Any]) -> Workspace | None:
        """Like `update` for a row that was read; the row as it is then, or None: it is gone.

        Nobody has written it since if its `updated_at` is the same, which every change sets: then
        only these values are new, and its object is brought up to date.
        """
        given = {"updated_at": now(), **values}
        if await self.update(row.id, given, expected={"updated_at": row.updated_at}):
            for name, value in given.items():
                set_committed_value(row, name, value)
            return row
        return await self.get(row.id) if await self.update(row.id, given) else None

    async def mark_deleted(self, workspace_id: str, archived: str | None = None) -> bool:
        """Hide the row for good; its slug and idempotency key become free, its secrets go.

        `archived`: why Bastide itself removed it; such ones stay in the list of `archived`.
        """
        at = now()
        if archived is not None:
            await self.update(workspace_id, {"archived_at": at, "archived_reason": archived})
        return await self.update(
            workspace_id,
            {
                "deleted_at": at,
                "desired_state": DesiredState.DELETED,
                "observed_state": MachineState.ABSENT,
                "observed_at": at,
                "address": None,
                "boot_id": None,
                "ready": False,
                "runtime_enabled": False,
                "raw_token": None,
                "image_auth": None,
                "ssh": {},
                "lease_expires_at": None,
                "config": {},
            },
        )

    async def _one(self, *conditions: ColumnElement[bool]) -> Workspace | None:
        """The one that is not deleted and meets the conditions."""
        return await self._session.scalar(
            select(Workspace)
            .where(Workspace.deleted_at.is_(None), *conditions)
            .limit(1)
            .execution_options(populate_existing=True)
        )
