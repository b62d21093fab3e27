"""What a statement did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.ext.asyncio import AsyncSession


async def changed(
    session: AsyncSession, statement: Update | Delete, values: Mapping[str, Any] | None = None
) -> bool:
    """Run a guarded statement with these values for its parameters; whether it changed a row.

    Objects already loaded in the session are not refreshed: read them again if needed.
    """
    statement = statement.execution_options(synchronize_session=False)
    result = cast("CursorResult[Any]", await session.execute(statement, values))
    return result.rowcount > 0
