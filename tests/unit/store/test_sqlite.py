"""SQLite in the thread of the loop, and transactions that do not wait for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import text

from bastide.store import sqlite as near
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Account, ApiKey


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


async def test_mistakes_are_told_as_what_they_are(sqlite: Database) -> None:
    """A taken value is `Duplicate`, and the transaction leaves nothing."""
    async with sqlite.write() as session:
        session.add(Account(id="acc_1", name="a"))
    with pytest.raises(Duplicate, match="client_id"):
        await _twice(sqlite)
    async with sqlite.read() as session:
        assert (await session.execute(text("SELECT count(*) FROM accounts"))).scalar_one() == 1


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


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once a writer has found the write lock held."""
    event, ask = asyncio.Event(), near._begin_at_once

    def begin(connection: sqlite3.Connection, pragmas: Iterable[str]) -> None:
        try:
            ask(connection, pragmas)
        except near._Held:
            event.set()
            raise

    monkeypatch.setattr(near, "_begin_at_once", begin)
    return event


async def test_a_writer_waits_for_another(sqlite: Database, refused: asyncio.Event) -> None:
    """Also for one of another process, and nobody else waits with it."""
    path = str(sqlite.url.database)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(_insert(sqlite, "late"))
    await asyncio.wait_for(refused.wait(), 60)
    async with sqlite.read() as session:  # while the other one holds the lock
        assert (await session.execute(text("SELECT count(*) FROM accounts"))).scalar_one() == 0
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(waiting, 60)
    async with sqlite.read() as session:
        assert (await session.execute(text("SELECT name FROM accounts"))).scalar_one() == "late"


@pytest.mark.parametrize("begun", [True, False])
async def test_one_that_gives_up_waiting_harms_nobody(
    sqlite: Database, refused: asyncio.Event, *, begun: bool
) -> None:
    """A cancelled writer leaves no lock behind, whether it had begun to wait or not."""
    other = sqlite3.connect(str(sqlite.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(_insert(sqlite, "never"))
    if begun:
        await asyncio.wait_for(refused.wait(), 60)
    waiting.cancel()
    other.execute("COMMIT")
    other.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(_insert(sqlite, "next"), 60)
    async with sqlite.read() as session:
        assert (await session.execute(text("SELECT name FROM accounts"))).scalar_one() == "next"


async def test_the_log_does_not_grow_for_ever(sqlite: Database) -> None:
    """Commits that do not wait for the disk bring what they logged into the file now and then."""
    for number in range(400):
        async with sqlite.write(lasting=False) as session:
            session.add(Account(name=f"{number}", limits={"padding": "x" * 4096}))
    assert _log_bytes(sqlite) < 2**21


def _log_bytes(database: Database) -> int:
    return Path(f"{database.url.database}-wal").stat().st_size


async def _insert(database: Database, name: str) -> None:
    async with database.write() as session:
        session.add(Account(name=name))
        await session.flush()
