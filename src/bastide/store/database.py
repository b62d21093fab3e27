"""The database: SQLite by default, PostgreSQL by its URL.

Two ways in, both one transaction: `read()` and `write()`. On SQLite `write()` takes the write
lock at once (`BEGIN IMMEDIATE`), so two writers wait for each other instead of failing half-way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from bastide.store import sqlite

_WRITING: Final = "bastide_writing"
_LASTING: Final = "bastide_lasting"
_UNIQUE_VIOLATION: Final = "23505"
_DISK_FULL: Final = "53100"
_COMMITS: Final = {
    True: ("PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=1000"),
    False: ("PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=0"),
}
"""One that does not wait for the disk must not have to clear up the log either."""
_NOT_LASTING: Final = text("SET LOCAL synchronous_commit = off")
_ADVISORY_LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")


class Duplicate(Exception):  # noqa: N818 - reads as what it is
    """A row with the same unique value exists. `constraint` says which, as the database put it."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class Database:
    """Connections to the database at `url` (a SQLAlchemy URL with an async driver).

    Values are left out of its error messages, which end up in logs: some are secrets.
    Opening makes the directory of a SQLite file; nothing is connected before the first use.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._open_sqlite() if self.is_sqlite else self._open_server()
        # SQLite has one writer at a time. Those of this process take turns here, where the next one
        # is told at once; in the database it would sleep and look again.
        self._turn: AbstractAsyncContextManager[None] = (
            asyncio.Lock() if self.is_sqlite else nullcontext()
        )
        self._reading = async_sessionmaker(self.engine, expire_on_commit=False)
        writing = self.engine.execution_options(**{_WRITING: True})
        passing = writing.execution_options(**{_LASTING: False})
        self._writing = async_sessionmaker(writing, expire_on_commit=False)
        self._passing = async_sessionmaker(passing, expire_on_commit=False)

    def _open_sqlite(self) -> AsyncEngine:
        """SQLite with a write-ahead log, foreign keys and transactions that we begin ourselves."""
        if self.url.database and self.url.database != ":memory:":
            Path(self.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_async_engine(
            self.url,
            pool_size=8,
            max_overflow=0,
            pool_use_lifo=True,  # the one used last knows what is in the file
            hide_parameters=True,
            connect_args={
                "timeout": sqlite.BUSY_TIMEOUT / 1000,
                "isolation_level": None,
                "check_same_thread": False,
            },
        )
        event.listen(engine.sync_engine, "do_connect", sqlite.connect)
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    def _open_server(self) -> AsyncEngine:
        """PostgreSQL; a connection that died while idle is replaced."""
        return create_async_engine(
            self.url, pool_size=8, max_overflow=8, pool_pre_ping=True, hide_parameters=True
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that changes nothing."""
        async with self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self, *, lasting: bool = True) -> AsyncIterator[AsyncSession]:
        """A transaction that is committed at the end of the block, undone by an exception.

        One that is not `lasting` survives the end of any process but not of the host's power, and
        spares the wait for the disk: for what a host that starts anew would not go by. The next
        lasting one brings it to the disk as well.

        Raises:
            Duplicate: a unique value is taken.
        """
        opening = self._writing if lasting else self._passing
        try:
            async with self._turn, opening.begin() as session:
                if not lasting and not self.is_sqlite:
                    await session.execute(_NOT_LASTING)
                yield session
        except IntegrityError as error:
            raise_duplicate(error)

    @asynccontextmanager
    async def exclusive(self, key: int) -> AsyncIterator[AsyncConnection]:
        """One transaction on a bare connection, one holder of `key` at a time (migrations)."""
        writing = self.engine.execution_options(**{_WRITING: True})
        async with writing.begin() as connection:
            if not self.is_sqlite:
                await connection.execute(_ADVISORY_LOCK, {"key": key})
            yield connection

    async def serialise(self, session: AsyncSession, key: int) -> None:
        """Let one transaction at a time past this point for `key`, until it ends.

        On SQLite `write()` has seen to that already.
        """
        if not self.is_sqlite:
            await session.execute(_ADVISORY_LOCK, {"key": key})

    async def ping(self) -> None:
        """Ask the database something small; raises what the driver raises."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Let go of all connections."""
        await self.engine.dispose()


def raise_duplicate(error: IntegrityError) -> None:
    """Turn a violated unique constraint into `Duplicate`; raise anything else as it is."""
    message, state = str(error.orig), getattr(error.orig, "sqlstate", None)
    if "UNIQUE constraint failed" in message or state == _UNIQUE_VIOLATION:
        raise Duplicate(message) from error
    raise error


def is_full(error: DBAPIError) -> bool:
    """Whether the database had no room for what it was to write."""
    primary = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # above it is where it was met
    return primary == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == _DISK_FULL


def _configure_sqlite(connection: Any, record: object) -> None:
    """Once per SQLite connection. Full sync: what was answered survives a power failure."""
    del record
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={sqlite.BUSY_TIMEOUT}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock before it reads what it decides on."""
    options = connection.get_execution_options()
    writing, lasting = options.get(_WRITING, False), options.get(_LASTING, True)
    near: Any = connection.connection.dbapi_connection
    if writing and near.lasting is not lasting:
        for pragma in _COMMITS[lasting]:
            connection.exec_driver_sql(pragma)
        near.lasting = lasting
    connection.exec_driver_sql(sqlite.BEGIN_WRITING if writing else "BEGIN")
