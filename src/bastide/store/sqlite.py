"""SQLite with one trip to its thread for each statement.

The driver (aiosqlite) runs a connection in a thread of its own, and SQLAlchemy asks that thread
four times for every statement: a cursor, the execution, the rows, the end of the cursor. Waiting
for the thread took longer than all the work of the database, so here a statement is one question.
"""

# ruff: noqa: SLF001 - the driver has no public way to run a function in its thread, nor SQLAlchemy
# one to give it other cursors; what is used here is what SQLAlchemy's own adapter uses.

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import ConnectionPoolEntry

_Told = tuple[Any, int, int | None, list[Any]]


class OneTripCursor(AsyncAdapt_aiosqlite_cursor):
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
        async with self._adapt_connection._execute_mutex:
            connection: Any = self._connection
            self._take(await connection._execute(_execute, connection._conn, operation, parameters))
        return self

    async def _executemany_async(self, operation: Any, seq_of_parameters: Sequence[Any]) -> Any:
        async with self._adapt_connection._execute_mutex:
            connection: Any = self._connection
            self._take(
                await connection._execute(
                    _execute_many, connection._conn, operation, seq_of_parameters
                )
            )
        return self

    def _take(self, told: _Told) -> None:
        self._description, self._rowcount, self._lastrowid, rows = told
        self._rows = deque(rows)


class OneTripConnection(AsyncAdapt_aiosqlite_connection):
    """A connection with such cursors."""

    __slots__ = ()

    _cursor_cls = OneTripCursor


def connect(
    dialect: Dialect, record: ConnectionPoolEntry, args: Any, parameters: Any
) -> OneTripConnection:
    """Open a connection; for SQLAlchemy's event `do_connect`."""
    del record
    opened: Any = dialect.connect(*args, **parameters)
    return OneTripConnection(opened.dbapi, opened._connection)


def _execute(connection: sqlite3.Connection, operation: str, parameters: Any) -> _Told:
    """In the connection's thread."""
    cursor = connection.execute(operation, () if parameters is None else parameters)
    return _told(cursor)


def _execute_many(connection: sqlite3.Connection, operation: str, parameters: Any) -> _Told:
    """In the connection's thread."""
    return _told(connection.executemany(operation, parameters))


def _told(cursor: sqlite3.Cursor) -> _Told:
    try:
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, cursor.rowcount, cursor.lastrowid, rows
    finally:
        cursor.close()
