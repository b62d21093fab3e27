"""Building the services of one process, and taking them down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import CollectorRegistry

from bastide.api.context import Services
from bastide.services.accounts import AccountService
from bastide.services.keys import KeyService
from bastide.services.tokens import TokenService
from bastide.settings import Settings
from bastide.store.database import Database
from bastide.store.migrate import migrate


@asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[Services]:
    """Open and migrate the database, make the first account if there is none, build the rest.

    What was opened is closed in the opposite order at the end.
    """
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database)
        accounts = AccountService(database, settings)
        await accounts.bootstrap()
        yield Services(
            settings=settings,
            database=database,
            metrics=CollectorRegistry(),
            accounts=accounts,
            keys=KeyService(database),
            tokens=TokenService(database, settings),
        )
