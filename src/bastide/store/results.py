"""What a statement did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.ext.asyncio import AsyncSession

_AS_IT_IS: Final = {"synchronize_session": False}


async def changed(
    session: AsyncSession, statement: Update | Delete, values: Mapping[str, Any] | None = None
) -> bool:
    """Run a guarded statement with these values for its parameters; whether it changed a row.

    Objects already loaded in the session are not refreshed: read them again if needed.
    """
    # given beside the statement: a copy of it with them would have to be looked at anew each time
    answer = await session.execute(statement, values, execution_options=_AS_IT_IS)
    result = cast("CursorResult[Any]", answer)
    return result.rowcount > 0
