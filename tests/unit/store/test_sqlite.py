"""SQLite with one trip a statement, and transactions that do not wait for the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from bastide.store.database import Database, Duplicate
from bastide.store.migrate import migrate
from bastide.store.tables import Account, ApiKey


@pytest.fixture
async def sqlite(tmp_path: Path) -> Database:
    """A migrated SQLite database."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/db.sqlite3")
    await migrate(database)
    return database


async def test_statements_of_every_kind(sqlite: Database) -> None:
    """Rows, counts, parameters by name, many at once, and nothing at all."""
    async with sqlite.write() as session:
        session.add_all(Account(name=f"account {number}") for number in range(5))
        await session.flush()
        await session.execute(
            text("UPDATE accounts SET name = :name WHERE name LIKE :like"),
            [{"name": "first", "like": "%0"}, {"name": "second", "like": "%1"}],
        )
        found = (await session.execute(text("SELECT name FROM accounts ORDER BY name"))).all()
        assert [row.name for row in found][-2:] == ["first", "second"]
        assert (await session.execute(text("SELECT 1 WHERE 0"))).first() is None
    await sqlite.close()


async def test_mistakes_are_told_as_what_they_are(sqlite: Database) -> None:
    """A taken value is `Duplicate`, and the transaction leaves nothing."""
    async with sqlite.write() as session:
        session.add(Account(id="acc_1", name="a"))
    with pytest.raises(Duplicate, match="client_id"):
        await _twice(sqlite)
    async with sqlite.read() as session:
        assert (await session.execute(text("SELECT count(*) FROM accounts"))).scalar_one() == 1
    await sqlite.close()


async def _twice(database: Database) -> None:
    async with database.write() as session:
        session.add(Account(id="acc_2", name="b"))
        for _ in range(2):
            key = ApiKey(account_id="acc_1", client_id="c", secret_hash="0" * 64, scope="admin")
            session.add(key)
            await session.flush()


async def test_only_what_must_last_waits_for_the_disk(sqlite: Database) -> None:
    """Each transaction has its own wish, whichever connection it gets; both are seen by all."""

    async def level(*, lasting: bool) -> int:
        async with sqlite.write(lasting=lasting) as session:
            session.add(Account(name="a"))
            return int((await session.execute(text("PRAGMA synchronous"))).scalar_one())

    assert [await level(lasting=lasting) for lasting in (True, False, True, False)] == [2, 1, 2, 1]
    async with sqlite.read() as session:
        assert (await session.execute(text("SELECT count(*) FROM accounts"))).scalar_one() == 4
    await sqlite.close()
