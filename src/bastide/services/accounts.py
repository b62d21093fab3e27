"""Accounts, and the first of them."""

from __future__ import annotations

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.errors import NotFound, ValidationFailed
from bastide.domain.scope import Scope
from bastide.services.first_credentials import FirstCredentials
from bastide.services.keys import new_key
from bastide.settings import Settings
from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.keys import Keys
from bastide.store.tables import Account

FIRST_NAME = "default"
_BOOTSTRAP = 0x66697273
log = structlog.get_logger(__name__)


class AccountService:
    """Accounts of this server."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def bootstrap(self) -> Account:
        """Make the first account and its admin key if there is no account yet.

        The secret is written to `settings.credentials_file` before the rows are committed: after
        a crash in between there is still no account, and the next start does it again. An
        existing account is left as it is, whatever became of the file.
        """
        async with self._database.write() as session:
            await self._database.serialise(session, _BOOTSTRAP)
            account = await Accounts(session).first()
            if account is not None:
                return account
            account = await Accounts(session).insert(Account(name=FIRST_NAME))
            await self._first_key(session, account)
        log.info("first account made", account=account.id)
        return account

    async def _first_key(self, session: AsyncSession, account: Account) -> None:
        issued = new_key(account.id, Scope.ADMIN, label="first key")
        FirstCredentials(
            client_id=issued.client_id,
            client_secret=issued.client_secret,
            account_id=account.id,
            api_url=self._settings.api_url,
            gateway_url=self._settings.gateway_url,
        ).write(self._settings.credentials_file)
        await Keys(session).insert(issued.key)

    async def create(self, name: str) -> Account:
        """Another account.

        Raises:
            ValidationFailed: the name is empty or too long.
        """
        if not 1 <= len(name) <= 255 or not name.isprintable():
            raise ValidationFailed("name", "name must be 1 to 255 printable characters.")
        async with self._database.write() as session:
            return await Accounts(session).insert(Account(name=name))

    async def get(self, account_id: str) -> Account:
        """One account.

        Raises:
            NotFound: there is none with that id.
        """
        async with self._database.read() as session:
            account = await Accounts(session).get(account_id)
        if account is None:
            raise NotFound(f"There is no account {account_id!r}.")
        return account

    async def all(self) -> list[Account]:
        """Every account, oldest first."""
        async with self._database.read() as session:
            return await Accounts(session).all()
