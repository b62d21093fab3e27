"""The database itself: migrations, transactions, types."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError
from tests.unit.store.rows import add_account, add_workspace, workspace

from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.migrate import migrate
from bastide.store.tables import Account, Table


async def test_models_and_migrations_agree(database: Database) -> None:
    """The migrated database is exactly what the tables say."""

    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Table.metadata))

    async with database.read() as session:
        assert await session.run_sync(lambda held: difference(held.connection())) == []


async def test_partial_indexes_are_there(database: Database) -> None:
    """The unique indexes that hold for some rows only were made as such."""

    def predicates(connection: Connection) -> dict[str, str]:
        found = {}
        for table in ("workspaces", "operations"):
            for index in inspect(connection).get_indexes(table):
                where = index["dialect_options"].get(f"{connection.dialect.name}_where")
                if index["unique"]:
                    found[str(index["name"])] = str(where)
        return found

    async with database.read() as session:
        found = await session.run_sync(lambda held: predicates(held.connection()))
    # A name in SSH commands is never given again, so that one holds for deleted rows too.
    assert found.pop("uq_workspaces_ssh_id") == "None"
    assert set(found) == {
        "uq_workspaces_slug",
        "uq_workspaces_idempotency_key",
        "uq_operations_unfinished",
    }
    assert all(where != "None" for where in found.values())


async def test_migrating_twice_and_at_once_is_harmless(empty_database: Database) -> None:
    """Two processes that start together leave one migrated database."""
    await asyncio.gather(*(migrate(empty_database) for _ in range(3)))
    await migrate(empty_database)
    async with empty_database.read() as session:
        versions = await session.scalar(text("SELECT count(*) FROM alembic_version"))
    assert versions == 1


async def test_concurrent_writers_wait_for_each_other(database: Database) -> None:
    """Read-then-write transactions do not fail when they overlap, and none is lost."""
    account = await add_account(database)

    async def grow() -> None:
        async with database.write() as session:
            row = await session.get(Account, account.id, with_for_update=True)
            assert row is not None
            count = row.limits.get("count", 0)
            await asyncio.sleep(0)
            row.limits = {"count": count + 1}

    await asyncio.gather(*(grow() for _ in range(20)))
    async with database.read() as session:
        row = await Accounts(session).get(account.id)
    assert row is not None
    assert row.limits == {"count": 20}


async def test_an_exception_undoes_the_block(database: Database) -> None:
    """Nothing half-made stays."""

    async def fail() -> None:
        async with database.write() as session:
            await Accounts(session).insert(Account(name="half"))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await fail()
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Account)) == 0


async def test_taken_values_are_duplicates(database: Database) -> None:
    """A unique value that is taken is told apart from other violations."""
    account = await add_account(database)
    await add_workspace(database, account, slug="same")
    with pytest.raises(Duplicate, match="slug"):
        await add_workspace(database, account, slug="same")
    stranger = workspace(Account(id="acc_nobody"), raw_token="5ec2e7" * 8)
    with pytest.raises(IntegrityError) as caught:
        async with database.write() as session:
            session.add(stranger)
    assert "5ec2e7" not in str(caught.value), "values must stay out of error messages"


async def test_instants_come_back_aware_and_in_utc(database: Database) -> None:
    """Whatever zone a time was given in, the same instant comes back in UTC."""
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    async with database.write() as session:
        account = await Accounts(session).insert(Account(name="t", created_at=at))
    async with database.read() as session:
        found = await Accounts(session).get(account.id)
    assert found is not None
    assert found.created_at == at
    assert found.created_at.tzinfo is UTC


async def test_a_time_without_zone_is_refused(database: Database) -> None:
    """A naive datetime is a defect and never stored."""
    naive = datetime(2026, 3, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(StatementError, match="must have a zone"):
        async with database.write() as session:
            await Accounts(session).insert(Account(name="t", created_at=naive))


async def test_ping_reaches_the_database(database: Database) -> None:
    """The readiness check asks the real thing."""
    await database.ping()
