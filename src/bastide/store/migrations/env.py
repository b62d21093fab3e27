"""Alembic's environment: uses the connection it is given, or opens the settings' database."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, Enum

from bastide.settings import settings
from bastide.store import columns
from bastide.store.database import Database
from bastide.store.migrate import LOCK
from bastide.store.tables import Table


def render(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write our own column types by their names in a new migration."""
    del context
    if kind != "type":
        return False
    if item is columns.Document:
        return "columns.Document"
    if isinstance(item, columns.Instant):
        return "columns.Instant()"
    if isinstance(item, Enum):
        return f"sa.String({item.length})"
    return False


def run(connection: Connection) -> None:
    """Run the migrations on a connection whose transaction is the caller's."""
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


async def open_and_run() -> None:
    """For a developer's `alembic` command, which brings no connection."""
    database = Database(settings().database_url)
    await database.alone(LOCK, run)
    await database.close()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(open_and_run())
