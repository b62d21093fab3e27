"""SQLite without trips to its thread for what takes less time than the way there.

The driver (aiosqlite) runs a connection in a thread of its own, and SQLAlchemy asks that thread
four times for every statement: a cursor, the execution, the rows, the end of the cursor. Waiting
for the thread takes ten times as long as a statement. So only what may have to wait goes there: a
write lock that somebody else holds, and a commit that must reach the disk.
"""

# ruff: noqa: SLF001 - the driver has no public way to run a function in its thread, nor SQLAlchemy
# one to give it other cursors; what is used here is what SQLAlchemy's own adapter uses.

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util.concurrency import await_

_Told = tuple[Any, int, int | None, list[Any]]

BUSY_TIMEOUT: Final = 30_000
"""Milliseconds a writer waits for another."""
BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
_WAITING: Final = "PRAGMA journal_mode"
_MOST_LOGGED: Final = 32
"""Commits of a connection that do not wait for the disk, until the log is cleared."""
_CLEAR_LOG: Final = "PRAGMA wal_checkpoint(PASSIVE)"
_NOTHING: Final[_Told] = (None, -1, None, [])


class NearCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor that holds all rows once it has executed; there is nothing of it in the thread."""

    __slots__ = ("_description", "_lastrowid", "_rowcount")

    def __init__(self, adapt_connection: Any) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._soft_closed_memoized = {}  # type: ignore[assignment]  # nothing is ever closed late
        self._rows = deque()
        self._description: Any = None
        self._rowcount = -1
        self._lastrowid: int | None = None

    @property
    def description(self) -> Any:
        """Of the last statement's columns."""
        return self._description

    @property
    def rowcount(self) -> int:
        """Rows the last statement changed."""
        return self._rowcount

    @property
    def lastrowid(self) -> Any:
        """Of the last row inserted."""
        return self._lastrowid

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        return

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        """Run a statement: here and now, or in the thread when it may have to wait."""
        connection: Any = self._connection
        if operation == BEGIN_WRITING:
            if _begin_at_once(connection._conn):
                self._take(_NOTHING)
                return self
        elif not operation.startswith(_WAITING):
            self._take(_execute(connection._conn, operation, parameters))
            return self
        self._take(await connection._execute(_execute, connection._conn, operation, parameters))
        return self

    async def _executemany_async(self, operation: Any, seq_of_parameters: Sequence[Any]) -> Any:
        connection: Any = self._connection
        self._take(_execute_many(connection._conn, operation, seq_of_parameters))
        return self

    def _take(self, told: _Told) -> None:
        self._description, self._rowcount, self._lastrowid, rows = told
        self._rows = deque(rows)


class NearConnection(AsyncAdapt_aiosqlite_connection):
    """A connection with such cursors. `lasting`: its commits are brought to the disk at once.

    `fresh`: the log may begin anew with the next commit, which then waits for the disk as well.
    """

    __slots__ = ("_logged", "lasting")

    fresh: ClassVar[bool] = True
    _cursor_cls = NearCursor

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self.lasting, self._logged = True, 0

    def rollback(self) -> None:
        """End a transaction; that waits for nothing."""
        inner: Any = self._connection
        if inner._connection is not None:
            inner._connection.rollback()

    def commit(self) -> None:
        """End a transaction, in the thread if it waits for the disk."""
        inner: Any = self._connection
        if self.lasting or NearConnection.fresh or inner._connection is None:
            super().commit()
            NearConnection.fresh = self.lasting
        else:
            inner._connection.commit()
        if not self.lasting:
            self._clear_log()

    def _clear_log(self) -> None:
        """Every so often bring the log into the file, which nobody else does after such commits."""
        self._logged += 1
        if self._logged < _MOST_LOGGED:
            return
        self._logged = 0
        connection: Any = self._connection
        with suppress(sqlite3.Error):  # what was committed stays so
            await_(connection._execute(_execute, connection._conn, _CLEAR_LOG, None))
        NearConnection.fresh = True


def connect(
    dialect: Dialect, record: ConnectionPoolEntry, args: Any, parameters: Any
) -> NearConnection:
    """Open a connection; for SQLAlchemy's event `do_connect`."""
    del record
    opened: Any = dialect.connect(*args, **parameters)
    return NearConnection(opened.dbapi, opened._connection)


def _begin_at_once(connection: sqlite3.Connection) -> bool:
    """Take the write lock if nobody has it; False: the thread has to wait for it."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute(BEGIN_WRITING)
    except sqlite3.OperationalError:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
    return True


def _execute(connection: sqlite3.Connection, operation: str, parameters: Any) -> _Told:
    """Run it and fetch all rows, in whichever thread this is called."""
    cursor = connection.execute(operation, () if parameters is None else parameters)
    return _told(cursor)


def _execute_many(connection: sqlite3.Connection, operation: str, parameters: Any) -> _Told:
    """The same for many parameters."""
    return _told(connection.executemany(operation, parameters))


def _told(cursor: sqlite3.Cursor) -> _Told:
    try:
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, cursor.rowcount, cursor.lastrowid, rows
    finally:
        cursor.close()
