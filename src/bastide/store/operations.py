"""Rows of operations: the queue that pipelines work.

A pass takes the next free row with `lock_next`, acts with no transaction open, and writes with
`apply_guarded`. A row whose lock has run out is free again, so a crash at any line leaves work
that the next pass finishes; whoever lost the lock writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from bastide.domain.instant import now
from bastide.domain.operation import FINISHED, UNFINISHED, OperationKind, OperationState, Phase
from bastide.store.results import changed
from bastide.store.tables import Operation, Workspace

_READERS = (OperationKind.UNPACK, OperationKind.PROVISION)
_ROWS = cast("Table", Operation.__table__)
_INSERT = insert(_ROWS)
# Built once: every request asks them, and building a statement takes longer than running it.
_FREE = (
    select(Operation.id)
    .where(Operation.state.in_(UNFINISHED), Operation.run_after <= bindparam("present"))
    .where(or_(Operation.lock_token.is_(None), Operation.lock_expires_at < bindparam("present")))
    .where(Operation.kind.in_(bindparam("kinds", expanding=True)))
    .order_by(Operation.run_after, Operation.created_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_TAKE = (
    update(Operation)
    .where(Operation.id == _FREE.scalar_subquery())
    .values(
        state=OperationState.RUNNING,
        attempts=Operation.attempts + 1,
        lock_token=bindparam("new_token"),
        lock_owner=bindparam("new_owner"),
        lock_expires_at=bindparam("until"),
        updated_at=bindparam("present"),
    )
    .returning(Operation)
    .execution_options(synchronize_session=False, populate_existing=True)
)


def _newest(kind: OperationKind | None = None) -> ScalarSelect[str]:
    """The id of the newest operation (of this kind) of a workspace that the same question reads."""
    one = aliased(Operation)
    found = (
        select(one.id)
        .where(one.workspace_id == Workspace.id)
        .order_by(one.created_at.desc(), one.id.desc())
        .limit(1)
        .correlate(Workspace)
    )
    return (found if kind is None else found.where(one.kind == kind)).scalar_subquery()


TELLS = or_(Operation.id == _newest(), Operation.id == _newest(OperationKind.PROVISION))
"""Whether an operation tells of a workspace that the same question reads; see `telling_among`."""
_TELLING = (
    select(Operation)
    .join(Workspace, TELLS)
    .where(Workspace.id == bindparam("workspace"))
    .order_by(Operation.created_at.desc(), Operation.id.desc())
    .execution_options(populate_existing=True)
)


@lru_cache
def _latest(kind: OperationKind | None) -> Select[Operation]:
    return (
        select(Operation)
        .join(Workspace, Operation.id == _newest(kind))
        .where(Workspace.id.in_(bindparam("workspaces", expanding=True)))
    )


def telling_among(found: Sequence[Operation]) -> tuple[Operation | None, Operation | None]:
    """The newest operation, and the newest creation, of those that tell, newest first."""
    creations = (row for row in found if row.kind is OperationKind.PROVISION)
    return next(iter(found), None), next(creations, None)


class Operations:
    """Operations within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, operation: Operation) -> Operation:
        """Queue an operation; `Duplicate` if the workspace has an unfinished one.

        What it does not say itself is filled in; the object belongs to no session.
        """
        for column in _ROWS.c:
            if column.default is not None and getattr(operation, column.key) is None:
                setattr(operation, column.key, _default(column.default))
        values = {column.key: getattr(operation, column.key) for column in _ROWS.c}
        await self._session.execute(_INSERT, values)
        return operation

    async def get(self, operation_id: str) -> Operation | None:
        """By id."""
        return await self._session.get(Operation, operation_id, populate_existing=True)

    async def unfinished(self, workspace_id: str) -> Operation | None:
        """The operation going on with a workspace."""
        return await self._session.scalar(
            select(Operation)
            .where(Operation.workspace_id == workspace_id, Operation.state.in_(UNFINISHED))
            .execution_options(populate_existing=True)
        )

    async def reading(self, archive_id: str) -> list[Operation]:
        """The unfinished ones that put the files of an archive into a workspace."""
        found = await self._session.scalars(
            select(Operation)
            .where(Operation.state.in_(UNFINISHED), Operation.kind.in_(_READERS))
            .where(Operation.params["archive"].as_string() == archive_id)
            .order_by(Operation.created_at, Operation.id)
        )
        return list(found)

    async def telling(self, workspace_id: str) -> tuple[Operation | None, Operation | None]:
        """The newest operation of a workspace, and its newest creation; both may be the same."""
        found = await self._session.scalars(_TELLING, {"workspace": workspace_id})
        return telling_among(found.all())

    async def latest(
        self, workspaces: Collection[str], kind: OperationKind | None = None
    ) -> dict[str, Operation]:
        """The newest operation (of this kind) of each workspace that has one.

        One step into an index for each workspace, however long its history is.
        """
        if not workspaces:
            return {}
        found = await self._session.scalars(_latest(kind), {"workspaces": list(workspaces)})
        return {row.workspace_id: row for row in found}

    async def prune(self, before: datetime, limit: int) -> int:
        """Remove finished operations that ended earlier, at most `limit`; how many.

        The newest of each workspace and its newest creation stay: its state is read from them.
        What restarts must remember is kept in the workspace's own row.
        """
        creation = Operation.kind == OperationKind.PROVISION
        old = (
            select(Operation.id)
            .where(Operation.state.in_(FINISHED), Operation.completed_at < before)
            .where(Operation.run_after < before)  # so was its time, which an index knows
            .where(_followed(), or_(~creation, _followed(OperationKind.PROVISION)))
            .limit(limit)
        )
        gone = await self._session.scalars(
            delete(Operation)
            .where(Operation.id.in_(old))
            .returning(Operation.id)
            .execution_options(synchronize_session=False)
        )
        return len(gone.all())

    async def supersede(self, workspace_id: str, reason: str) -> bool:
        """End the unfinished operation of a workspace: another takes its place."""
        at = now()
        return await changed(
            self._session,
            update(Operation)
            .where(Operation.workspace_id == workspace_id, Operation.state.in_(UNFINISHED))
            .values(
                state=OperationState.FAILED,
                phase=Phase.FAILED,
                message=reason,
                error={"code": "superseded", "message": reason},
                lock_token=None,
                lock_owner=None,
                lock_expires_at=None,
                updated_at=at,
                completed_at=at,
            ),
        )

    async def hurry(self, workspace_id: str) -> bool:
        """Let the operation of a workspace that waits for its time begin now; False: none does."""
        at = now()
        return await changed(
            self._session,
            update(Operation)
            .where(Operation.workspace_id == workspace_id, Operation.run_after > at)
            .where(Operation.state == OperationState.QUEUED)
            .values(run_after=at, updated_at=at),
        )

    async def locked(self) -> list[Operation]:
        """Those that some pass holds now, or held when it died."""
        found = await self._session.scalars(
            select(Operation).where(
                Operation.state.in_(UNFINISHED), Operation.lock_token.is_not(None)
            )
        )
        return list(found)

    async def due(self) -> list[OperationKind]:
        """The kinds of which `lock_next` would find one now; takes no lock."""
        at = now()
        found = await self._session.scalars(
            select(Operation.kind)
            .where(Operation.state.in_(UNFINISHED), Operation.run_after <= at)
            .where(or_(Operation.lock_token.is_(None), Operation.lock_expires_at < at))
            .distinct()
        )
        return list(found)

    async def lock_next(
        self, owner: str, seconds: float, kinds: Collection[OperationKind] | None = None
    ) -> Operation | None:
        """Take the next free operation for `seconds`, or None when there is nothing to do.

        The row comes back `running`, with a fresh `lock_token` and `attempts` counted up.
        PostgreSQL skips rows that another pass is taking; SQLite has one writer at a time.
        """
        at = now()
        values = {
            "present": at,
            "kinds": list(OperationKind if kinds is None else kinds),
            "new_token": secrets.token_hex(16),
            "new_owner": owner,
            "until": at + timedelta(seconds=seconds),
        }
        taken = await self._session.scalars(_TAKE, values)
        return taken.one_or_none()

    @staticmethod
    def taken(operation: Operation, owner: str, seconds: float) -> Operation:
        """The same operation, not yet inserted, as one that its owner has taken already."""
        operation.state = OperationState.RUNNING
        operation.attempts = 1
        operation.lock_token = secrets.token_hex(16)
        operation.lock_owner = owner
        operation.lock_expires_at = now() + timedelta(seconds=seconds)
        return operation

    async def extend(self, operation_id: str, lock_token: str, seconds: float) -> bool:
        """Keep the lock for `seconds` from now; False if it was lost."""
        return await self._guarded(
            operation_id, lock_token, {"lock_expires_at": now() + timedelta(seconds=seconds)}
        )

    async def apply_guarded(
        self, operation_id: str, lock_token: str, values: Mapping[str, Any]
    ) -> bool:
        """Set columns while the lock is held; False: stale, drop the result.

        It also holds the row until the end of the transaction, so writing the workspace after it
        is safe.
        """
        return await self._guarded(operation_id, lock_token, {"updated_at": now(), **values})

    async def finish(self, operation_id: str, lock_token: str, values: Mapping[str, Any]) -> bool:
        """Like `apply_guarded`, for the last time: completed and unlocked."""
        return await self.apply_guarded(
            operation_id, lock_token, {"completed_at": now(), **_UNLOCKED, **values}
        )

    async def release(self, operation_id: str, lock_token: str, delay: float) -> bool:
        """Give the row back to be tried again in `delay` seconds."""
        at = now()
        return await self._guarded(
            operation_id,
            lock_token,
            {"run_after": at + timedelta(seconds=delay), "updated_at": at, **_UNLOCKED},
        )

    async def _guarded(self, operation_id: str, lock_token: str, values: Mapping[str, Any]) -> bool:
        """Write only with the lock."""
        told = {f"new_{name}": value for name, value in values.items()}
        guards = {"id_of": operation_id, "held": lock_token}
        return await changed(self._session, _guarded(tuple(values)), {**guards, **told})


@lru_cache(maxsize=64)
def _guarded(names: tuple[str, ...]) -> Update:
    return (
        update(_ROWS)
        .where(_ROWS.c.id == bindparam("id_of"), _ROWS.c.lock_token == bindparam("held"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )


def _default(default: Any) -> Any:
    """The value of a column that nobody has given one."""
    return default.arg(None) if default.is_callable else default.arg


def _followed(kind: OperationKind | None = None) -> ColumnElement[bool]:
    """Whether its workspace has a newer operation (of this kind)."""
    newer = aliased(Operation)
    found = exists().where(
        newer.workspace_id == Operation.workspace_id,
        or_(
            newer.created_at > Operation.created_at,
            (newer.created_at == Operation.created_at) & (newer.id > Operation.id),
        ),
    )
    return found if kind is None else found.where(newer.kind == kind)


_UNLOCKED: Mapping[str, Any] = {"lock_token": None, "lock_owner": None, "lock_expires_at": None}
