"""The history of operations, which is bounded."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.unit.store.rows import add_account, add_operation, add_workspace

from bastide.domain.instant import now
from bastide.domain.operation import OperationKind, OperationState
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces

WEEK = timedelta(days=7)


async def ended(
    database: Database, owner: Workspace, kind: OperationKind, at: datetime
) -> Operation:
    """An operation that ended then."""
    times = {"created_at": at, "run_after": at, "completed_at": at}
    return await add_operation(database, owner, kind, state=OperationState.DONE, **times)


async def test_old_ones_go_and_what_is_read_stays(database: Database) -> None:
    """The newest, the newest creation, what is young and what goes on are kept."""
    one = await add_workspace(database, await add_account(database))
    kinds = OperationKind
    then = now() - 2 * WEEK
    failed = await ended(database, one, kinds.PROVISION, then)
    made = await ended(database, one, kinds.PROVISION, then + timedelta(hours=1))
    stopped = await ended(database, one, kinds.STOP, then + timedelta(hours=2))
    newest = await ended(database, one, kinds.START, then + timedelta(hours=3))

    async def pruned(limit: int = 100) -> int:
        async with database.write() as session:
            return await Operations(session).prune(now() - WEEK, limit)

    assert (await pruned(1), await pruned(), await pruned()) == (1, 1, 0)
    young = await ended(database, one, kinds.STOP, now() - timedelta(days=1))
    going = await add_operation(database, one, kinds.START)
    assert await pruned() == 1
    async with database.read() as session:
        rows = Operations(session)
        kept = {each.id for each in (made, newest, young, going, failed, stopped)}
        found = {each for each in kept if await rows.get(each) is not None}
    assert found == {made.id, young.id, going.id}


async def test_busy_leases_keep_none_waiting(database: Database) -> None:
    """A lease that cannot be ended now takes no place from one that can."""
    account, over = await add_account(database), now() - timedelta(hours=1)
    busy = await add_workspace(database, account, lease_expires_at=over)
    await add_operation(database, busy, OperationKind.START)
    free = await add_workspace(database, account, lease_expires_at=over + timedelta(minutes=1))
    async with database.read() as session:
        assert await Workspaces(session).expired(now(), 1) == [free.id]
