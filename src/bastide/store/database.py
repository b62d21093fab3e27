"""The database: SQLite by default, PostgreSQL by its URL.

Two ways in, both one transaction: `read()` and `write()`. On SQLite `write()` takes the write
lock at once (`BEGIN IMMEDIATE`), so two writers wait for each other instead of failing half-way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.store.postgres import Postgres
from bastide.store.sqlite import Sqlite


class Connections(Protocol):
    """What each of the two is to the store; see `Database`."""

    @property
    def engine(self) -> Engine:
        """For its events and its dialect."""

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """See `Database.read`."""

    def write(self, *, lasting: bool) -> AbstractAsyncContextManager[AsyncSession]:
        """See `Database.write`."""

    async def alone(self, key: int, work: Callable[[Connection], None]) -> None:
        """See `Database.alone`."""

    async def serialise(self, session: AsyncSession, key: int) -> None:
        """See `Database.serialise`."""

    async def close(self) -> None:
        """See `Database.close`."""


class Database:
    """Connections to the database at `url` (a SQLAlchemy URL).

    Values are left out of its error messages, which end up in logs: some are secrets.
    Opening makes the directory of a SQLite file; nothing is connected before the first use.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._to: Connections = Sqlite(self.url) if self.is_sqlite else Postgres(self.url)
        self.engine = self._to.engine

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that changes nothing."""
        return self._to.read()

    def write(self, *, lasting: bool = True) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that is committed at the end of the block, undone by an exception.

        One that is not `lasting` survives the end of any process but not of the host's power, and
        spares the wait for the disk: for what a host that starts anew would not go by. The next
        lasting one brings it to the disk as well.

        Raises:
            Duplicate: a unique value is taken.
        """
        return self._to.write(lasting=lasting)

    async def alone(self, key: int, work: Callable[[Connection], None]) -> None:
        """Do `work` in one transaction on a bare connection, one at a time for `key`."""
        await self._to.alone(key, work)

    async def serialise(self, session: AsyncSession, key: int) -> None:
        """Let one transaction at a time past this point for `key`, until it ends."""
        await self._to.serialise(session, key)

    async def ping(self) -> None:
        """Ask the database something small; raises what the driver raises."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Let go of all connections."""
        await self._to.close()
