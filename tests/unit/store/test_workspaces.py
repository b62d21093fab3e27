"""Rows of workspaces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.store.rows import add_account, add_operation, add_workspace

from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind, OperationState
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Workspace
from bastide.store.workspaces import Filter, Workspaces

DAY = datetime(2026, 3, 1, tzinfo=UTC)


async def test_found_by_id_or_slug_within_the_account(database: Database) -> None:
    """Id and slug both find it; another account's references find nothing."""
    one, two = await add_account(database), await add_account(database, "two")
    made = await add_workspace(database, one, slug="calm-harbor")
    async with database.read() as session:
        rows = Workspaces(session)
        for reference in (made.id, "calm-harbor"):
            found = await rows.find(one.id, reference)
            assert found is not None
            assert found.id == made.id
            assert await rows.find(two.id, reference) is None
        assert await rows.find(one.id, "other") is None


async def test_an_id_wins_over_an_equal_slug(database: Database) -> None:
    """A slug that reads like somebody's id does not hide that workspace."""
    account = await add_account(database)
    first = await add_workspace(database, account, id="ws_aaaaaaaaaaaa")
    await add_workspace(database, account, slug="ws_aaaaaaaaaaaa")
    async with database.read() as session:
        found = await Workspaces(session).find(account.id, "ws_aaaaaaaaaaaa")
    assert found is not None
    assert found.id == first.id


async def test_told_with_the_operations_that_tell_of_it(database: Database) -> None:
    """By id or slug, with its newest operation and its newest creation, and nobody else's."""
    account = await add_account(database)
    first = await add_workspace(database, account, id="ws_aaaaaaaaaaaa")
    second = await add_workspace(database, account, slug="ws_aaaaaaaaaaaa")
    kinds, done = OperationKind, OperationState.DONE
    made = await add_operation(database, first, kinds.PROVISION, state=done)
    await add_operation(database, first, kinds.START, state=done)
    last = await add_operation(database, first, kinds.STOP)
    await add_operation(database, second, kinds.PROVISION)
    bare = await add_workspace(database, account, slug="bare")
    async with database.read() as session:
        rows = Workspaces(session)
        row, newest, creation = await rows.told(account.id, "ws_aaaaaaaaaaaa")
        assert row is not None
        assert newest is not None
        assert creation is not None
        assert (row.id, newest.id, creation.id) == (first.id, last.id, made.id)
        alone = await rows.told(account.id, "bare")
        assert alone[0] is not None
        assert (alone[0].id, alone[1:]) == (bare.id, (None, None))
        assert await rows.told(account.id, "none") == (None, None, None)
        assert await rows.told(account.id, "a/b") == (None, None, None)


@pytest.mark.parametrize("reference", ["", "\x00", "a\x00b", "ü" * 5, "x" * 300, "\ud800", "a/b"])
async def test_impossible_references_find_nothing(database: Database, reference: str) -> None:
    """What no id or slug can be never reaches the database."""
    account = await add_account(database)
    async with database.read() as session:
        assert await Workspaces(session).find(account.id, reference) is None


async def test_documents_and_defaults_come_back(database: Database) -> None:
    """JSON, enumerations and defaults survive the way through the database."""
    account = await add_account(database)
    made = await add_workspace(database, account, config={"env": [{"key": "ä", "value": "1"}]})
    async with database.read() as session:
        found = await Workspaces(session).get(made.id)
    assert found is not None
    assert found.config == {"env": [{"key": "ä", "value": "1"}]}
    assert found.mode is Mode.PERMANENT
    assert found.desired_state is DesiredState.RUNNING
    assert found.observed_state is MachineState.ABSENT
    assert found.observed_exit is None
    assert found.generation == 1
    assert "raw" not in repr(found)


async def test_pages_are_newest_first_and_counted(database: Database) -> None:
    """Paging gives every row once, in a fixed order."""
    account = await add_account(database)
    ids = [
        (await add_workspace(database, account, created_at=DAY + timedelta(days=n))).id
        for n in range(5)
    ]
    await add_workspace(database, await add_account(database, "two"))
    which = Filter(account_id=account.id)
    async with database.read() as session:
        rows = Workspaces(session)
        assert await rows.count(which) == 5
        pages = [await rows.page(which, limit=2, offset=offset) for offset in (0, 2, 4)]
        assert await rows.totals(which) == (5, 5.0, 2560, 20480, 0)
    assert [[row.id for row in page] for page in pages] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
    ]


async def test_filters_select(database: Database) -> None:
    """Each filter keeps what it names and drops the rest."""
    account = await add_account(database)
    plain = await add_workspace(database, account)
    other = await add_workspace(
        database,
        account,
        namespace="shop",
        mode=Mode.TEMPORARY,
        desired_state=DesiredState.STOPPED,
        observed_state=MachineState.RUNNING,
    )
    await add_operation(database, other, OperationKind.STOP)
    await add_operation(database, plain, OperationKind.START, state=OperationState.DONE)

    async def ids(which: Filter) -> set[str]:
        async with database.read() as session:
            return {row.id for row in await Workspaces(session).page(which)}

    assert await ids(Filter()) == {plain.id, other.id}
    for which in (
        Filter(namespace="shop"),
        Filter(ids=(other.id,)),
        Filter(mode=Mode.TEMPORARY),
        Filter(desired=(DesiredState.STOPPED,)),
        Filter(observed=(MachineState.RUNNING, MachineState.PAUSED)),
        Filter(busy=(OperationKind.STOP,)),
    ):
        assert await ids(which) == {other.id}
    assert await ids(Filter(busy=())) == {plain.id}
    assert await ids(Filter(busy=(OperationKind.START,))) == set()
    assert await ids(Filter(ids=())) == set()


async def test_updates_are_guarded(database: Database) -> None:
    """An update whose expectation no longer holds changes nothing."""
    account = await add_account(database)
    made = await add_workspace(database, account)
    async with database.write() as session:
        rows = Workspaces(session)
        assert await rows.update(made.id, {"generation": 2}, expected={"generation": 1})
        assert not await rows.update(made.id, {"generation": 9}, expected={"generation": 1})
        assert await rows.update(made.id, {"address": "10.201.0.9"}, expected={"address": None})
        found = await rows.get(made.id)
    assert found is not None
    assert (found.generation, found.address) == (2, "10.201.0.9")
    assert found.updated_at > made.updated_at


async def test_a_row_that_was_read_stays_up_to_date(database: Database) -> None:
    """What is put into it is in the object too, and what somebody else wrote meanwhile."""
    made = await add_workspace(database, await add_account(database))
    for other in (False, True):
        async with database.read() as session:
            row = await Workspaces(session).get(made.id)
        assert row is not None
        if other:
            async with database.write() as session:
                await Workspaces(session).update(made.id, {"name": "theirs"})
        seen = {"observed_state": MachineState.PAUSED, "timings": {"agent": 1.5}, "ready": other}
        async with database.write() as session:
            put = await Workspaces(session).put(row, seen)
        async with database.read() as session:
            fresh = await Workspaces(session).get(made.id)
        assert put is not None
        assert fresh is not None
        assert (put is row) is not other
        for column in Workspace.__table__.columns:
            told, kept = getattr(put, column.key), getattr(fresh, column.key)
            assert (told, type(told)) == (kept, type(kept)), column.key
    async with database.write() as session:
        await Workspaces(session).mark_deleted(made.id)
        assert await Workspaces(session).put(made, {"ready": True}) is None


async def test_deleted_workspaces_are_gone_and_free_their_names(database: Database) -> None:
    """After deletion nothing finds the row, its secrets are gone, its slug and key are free."""
    account = await add_account(database)
    made = await add_workspace(
        database,
        account,
        slug="mine",
        idempotency_key="k",
        raw_token="ab" * 16,
        config={"env": {}},
        image_auth={"username": "", "password": "secret"},
    )
    async with database.write() as session:
        assert await Workspaces(session).mark_deleted(made.id)
    async with database.write() as session:
        rows = Workspaces(session)
        assert not await rows.mark_deleted(made.id)
        assert not await rows.update(made.id, {"name": "again"})
        assert await rows.get(made.id) is None
        assert await rows.find(account.id, "mine") is None
        assert await rows.by_idempotency_key(account.id, "k") is None
        assert await rows.count(Filter()) == 0
        hidden = await session.get(Workspace, made.id)
    assert hidden is not None
    assert (hidden.raw_token, hidden.config, hidden.image_auth) == (None, {}, None)
    again = await add_workspace(database, account, slug="mine", idempotency_key="k")
    async with database.read() as session:
        found = await Workspaces(session).by_idempotency_key(account.id, "k")
    assert found is not None
    assert found.id == again.id


async def test_idempotency_keys_are_unique_per_account(database: Database) -> None:
    """The second creation with a key fails in the database, whatever the service saw."""
    one, two = await add_account(database), await add_account(database, "two")
    await add_workspace(database, one, idempotency_key="k")
    await add_workspace(database, two, idempotency_key="k")
    with pytest.raises(Duplicate, match="idempotency_key"):
        await add_workspace(database, one, idempotency_key="k")
