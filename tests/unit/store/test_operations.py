"""The queue of operations."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.unit.store.rows import add_account, add_operation, add_workspace

from bastide.domain.instant import now
from bastide.domain.operation import OperationKind, OperationState, Phase
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.operations import Operations
from bastide.store.tables import Operation


async def take(
    database: Database, seconds: float = 60, kinds: tuple[OperationKind, ...] | None = None
) -> Operation | None:
    """Lock the next one."""
    async with database.write() as session:
        return await Operations(session).lock_next("test", seconds, kinds)


async def test_a_workspace_has_one_unfinished_operation(database: Database) -> None:
    """A second one is refused by the database, and possible once the first is finished."""
    made = await add_workspace(database, await add_account(database))
    await add_operation(database, made)
    with pytest.raises(Duplicate):
        await add_operation(database, made, OperationKind.STOP)
    taken = await take(database)
    assert taken is not None
    async with database.write() as session:
        done = {"state": OperationState.DONE, "phase": Phase.READY}
        assert await Operations(session).finish(taken.id, taken.lock_token or "", done)
    await add_operation(database, made, OperationKind.STOP)


async def test_locking_gives_each_row_once(database: Database) -> None:
    """Passes that run at the same time never work on the same row."""
    account = await add_account(database)
    for _ in range(8):
        await add_operation(database, await add_workspace(database, account))
    taken = await asyncio.gather(*(take(database) for _ in range(12)))
    ids = [operation.id for operation in taken if operation is not None]
    # A pass may find a row that is just being taken and leave empty-handed; the next gets it.
    while (operation := await take(database)) is not None:
        ids.append(operation.id)
    assert len(ids) == len(set(ids)) == 8


async def test_a_taken_row_is_running_and_counted(database: Database) -> None:
    """The pass gets the row as it now is."""
    made = await add_workspace(database, await add_account(database))
    await add_operation(database, made, params={"force": True})
    taken = await take(database)
    assert taken is not None
    assert taken.state is OperationState.RUNNING
    assert (taken.attempts, taken.lock_owner, taken.params) == (1, "test", {"force": True})
    assert taken.lock_expires_at is not None
    assert taken.lock_expires_at > now()


async def test_a_lock_that_ran_out_is_free_again(database: Database) -> None:
    """After a crash the next pass gets the row, and the old token writes nothing."""
    made = await add_workspace(database, await add_account(database))
    await add_operation(database, made)
    first = await take(database, seconds=-1)
    second = await take(database)
    assert first is not None
    assert second is not None
    assert (second.id, second.attempts) == (first.id, 2)
    assert second.lock_token != first.lock_token
    async with database.write() as session:
        rows = Operations(session)
        stale, held = first.lock_token or "", second.lock_token or ""
        assert not await rows.apply_guarded(first.id, stale, {"phase": Phase.READY})
        assert not await rows.extend(first.id, stale, 60)
        assert not await rows.release(first.id, stale, 0)
        assert await rows.apply_guarded(first.id, held, {"phase": Phase.STARTING})
        assert await rows.extend(first.id, held, 60)
        found = await rows.get(first.id)
    assert found is not None
    assert found.phase is Phase.STARTING


async def test_release_gives_back_after_a_delay(database: Database) -> None:
    """A released row waits its time and is then taken again."""
    made = await add_workspace(database, await add_account(database))
    await add_operation(database, made)
    for delay in (0.0, 60.0):
        taken = await take(database)
        assert taken is not None
        async with database.write() as session:
            assert await Operations(session).release(taken.id, taken.lock_token or "", delay)
    assert await take(database) is None


async def test_rows_wait_for_their_time_and_kind(database: Database) -> None:
    """What is due later or of another kind is left alone; the oldest due comes first."""
    account = await add_account(database)
    later = await add_workspace(database, account)
    await add_operation(database, later, run_after=now() + timedelta(hours=1))
    second = await add_operation(database, await add_workspace(database, account))
    first = await add_operation(
        database,
        await add_workspace(database, account),
        OperationKind.DELETE,
        run_after=now() - timedelta(hours=1),
    )
    provision = await take(database, kinds=(OperationKind.PROVISION,))
    assert provision is not None
    assert provision.id == second.id
    delete = await take(database)
    assert delete is not None
    assert delete.id == first.id
    assert await take(database) is None


async def test_superseding_makes_the_worker_stale(database: Database) -> None:
    """Deletion takes the place of whatever goes on; the pass that did it writes nothing more."""
    made = await add_workspace(database, await add_account(database))
    await add_operation(database, made)
    taken = await take(database)
    assert taken is not None
    async with database.write() as session:
        rows = Operations(session)
        assert await rows.supersede(made.id, "the workspace is being deleted")
        assert not await rows.supersede(made.id, "again")
        await rows.insert(Operation(workspace_id=made.id, kind=OperationKind.DELETE))
    async with database.write() as session:
        rows = Operations(session)
        assert not await rows.finish(taken.id, taken.lock_token or "", {"phase": Phase.READY})
        old, new = await rows.get(taken.id), await rows.unfinished(made.id)
    assert old is not None
    assert (old.state, old.error) == (
        OperationState.FAILED,
        {"code": "superseded", "message": "the workspace is being deleted"},
    )
    assert new is not None
    assert new.kind is OperationKind.DELETE


async def test_latest_is_the_newest_of_each(database: Database) -> None:
    """The last operation of each workspace, of all kinds or of some."""
    account = await add_account(database)
    one, two = await add_workspace(database, account), await add_workspace(database, account)
    done = OperationState.DONE
    at = now()
    provision = await add_operation(database, one, created_at=at, state=done)
    stop = await add_operation(
        database, one, OperationKind.STOP, created_at=at + timedelta(seconds=1), state=done
    )
    other = await add_operation(database, two)
    async with database.read() as session:
        rows = Operations(session)
        newest = await rows.latest([one.id, two.id])
        provisions = await rows.latest([one.id], OperationKind.PROVISION)
        assert await rows.latest([]) == {}
    assert {key: row.id for key, row in newest.items()} == {one.id: stop.id, two.id: other.id}
    assert {key: row.id for key, row in provisions.items()} == {one.id: provision.id}
