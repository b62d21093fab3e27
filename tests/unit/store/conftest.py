"""What the tests of the store share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bastide.store.database import Database
from bastide.store.migrate import migrate


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    """A migrated SQLite database, for what is true of SQLite alone."""
    database = Database(f"sqlite:///{tmp_path}/db.sqlite3")
    await migrate(database)
    yield database
    await database.close()
