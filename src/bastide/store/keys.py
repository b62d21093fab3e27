"""Rows of API keys and of revoked tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.store.results import changed
from bastide.store.tables import ApiKey, RevokedToken

# Built once: every request asks it, and building a statement takes longer than running it.
_BY_CLIENT = select(ApiKey).where(ApiKey.client_id == bindparam("client"))


class Keys:
    """API keys within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, key: ApiKey) -> ApiKey:
        """Add a key."""
        self._session.add(key)
        await self._session.flush()
        return key

    async def by_client(self, client_id: str) -> ApiKey | None:
        """The key with this client id, revoked or not."""
        return await self._session.scalar(_BY_CLIENT, {"client": client_id})

    async def of(self, account_id: str) -> list[ApiKey]:
        """The keys of an account, oldest first."""
        found = await self._session.scalars(
            select(ApiKey)
            .where(ApiKey.account_id == account_id)
            .order_by(ApiKey.created_at, ApiKey.id)
        )
        return list(found)

    async def revoke(self, account_id: str, reference: str, at: datetime) -> bool:
        """Revoke a key by its id or client id; False if there is none to revoke."""
        return await changed(
            self._session,
            update(ApiKey)
            .where(ApiKey.account_id == account_id, ApiKey.revoked_at.is_(None))
            .where((ApiKey.id == reference) | (ApiKey.client_id == reference))
            .values(revoked_at=at),
        )

    async def touch(self, key_id: str, at: datetime) -> None:
        """Note when the key was last used."""
        await self._session.execute(
            update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=at)
        )


class RevokedTokens:
    """Tokens taken back before their time, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, jti: str, expires_at: datetime) -> None:
        """Take back a token; repeating is harmless."""
        await self._session.merge(RevokedToken(jti=jti, expires_at=expires_at))
        await self._session.flush()

    async def contains(self, jti: str) -> bool:
        """Whether the token was taken back."""
        return await self._session.get(RevokedToken, jti) is not None

    async def forget_expired(self, at: datetime) -> None:
        """Drop the rows of tokens that have expired by themselves."""
        await self._session.execute(delete(RevokedToken).where(RevokedToken.expires_at < at))
