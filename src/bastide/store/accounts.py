"""Rows of accounts."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.store.tables import Account


class Accounts:
    """Accounts within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, account: Account) -> Account:
        """Add an account."""
        self._session.add(account)
        await self._session.flush()
        return account

    async def get(self, account_id: str) -> Account | None:
        """The account, if it exists."""
        return await self._session.get(Account, account_id)

    async def hold(self, account_id: str) -> Account | None:
        """The account, kept from other writers until the transaction ends (limits are counted)."""
        return await self._session.get(Account, account_id, with_for_update=True)

    async def first(self) -> Account | None:
        """The oldest account: the one made at the first start."""
        return await self._session.scalar(
            select(Account).order_by(Account.created_at, Account.id).limit(1)
        )

    async def all(self) -> list[Account]:
        """Every account, oldest first."""
        found = await self._session.scalars(
            select(Account).order_by(Account.created_at, Account.id)
        )
        return list(found)
