"""The time as the database tells it: one clock for all processes that work its rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

Time = Callable[[AsyncSession], Awaitable[datetime]]

_SQLITE = text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
_POSTGRES = text("SELECT clock_timestamp()")


async def database_time(session: AsyncSession) -> datetime:
    """The present, in UTC, to the millisecond at least."""
    if session.get_bind().dialect.name == "sqlite":
        found = await session.scalar(_SQLITE)
        return datetime.fromisoformat(str(found)).replace(tzinfo=UTC)
    told: datetime = (await session.execute(_POSTGRES)).scalar_one()
    return told.astimezone(UTC)
