"""PostgreSQL, over the network or a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bastide.store.errors import raise_duplicate

_ADVISORY_LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
_NOT_LASTING: Final = text("SET LOCAL synchronous_commit = off")


class Postgres:
    """Connections to a server; one that died while idle is replaced."""

    def __init__(self, url: URL) -> None:
        self._engine = create_async_engine(
            url, pool_size=8, max_overflow=8, pool_pre_ping=True, hide_parameters=True
        )
        self._opening = async_sessionmaker(self._engine, expire_on_commit=False)

    @property
    def engine(self) -> Engine:
        """See `Connections`."""
        return self._engine.sync_engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """See `Connections`."""
        async with self._opening() as session:
            yield session

    @asynccontextmanager
    async def write(self, *, lasting: bool) -> AsyncIterator[AsyncSession]:
        """See `Connections`."""
        try:
            async with self._opening.begin() as session:
                if not lasting:
                    await session.execute(_NOT_LASTING)
                yield session
        except IntegrityError as error:
            raise_duplicate(error)

    async def alone(self, key: int, work: Callable[[Connection], None]) -> None:
        """See `Connections`."""
        async with self._engine.begin() as connection:
            await connection.execute(_ADVISORY_LOCK, {"key": key})
            await connection.run_sync(work)

    async def serialise(self, session: AsyncSession, key: int) -> None:
        """See `Connections`."""
        await session.execute(_ADVISORY_LOCK, {"key": key})

    async def close(self) -> None:
        """See `Connections`."""
        await self._engine.dispose()
