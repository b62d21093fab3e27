"""Rows of keys, revoked tokens and accounts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.store.rows import add_account

from bastide.domain.instant import now
from bastide.domain.scope import Scope
from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.keys import Keys, RevokedTokens
from bastide.store.tables import Account, ApiKey


def key(account: Account, client_id: str) -> ApiKey:
    return ApiKey(
        account_id=account.id, client_id=client_id, secret_hash="0" * 64, scope=Scope.ADMIN
    )


async def test_keys_are_found_listed_touched_and_revoked(database: Database) -> None:
    """A key goes through its life; another account can do nothing to it."""
    one, two = await add_account(database), await add_account(database, "two")
    at = now()
    async with database.write() as session:
        rows = Keys(session)
        made = await rows.insert(key(one, "bastide_a"))
        await rows.touch(made.id, at)
        assert not await rows.revoke(two.id, made.id, at)
        assert await rows.revoke(one.id, made.id, at)
        assert not await rows.revoke(one.id, "bastide_a", at)
    async with database.read() as session:
        found = await Keys(session).by_client("bastide_a")
        assert [row.id for row in await Keys(session).of(one.id)] == [made.id]
        assert await Keys(session).of(two.id) == []
    assert found is not None
    assert (found.last_used_at, found.revoked_at, found.scope) == (at, at, Scope.ADMIN)


async def test_client_ids_are_unique(database: Database) -> None:
    """No two keys share a client id."""
    account = await add_account(database)
    async with database.write() as session:
        await Keys(session).insert(key(account, "bastide_a"))
    with pytest.raises(Duplicate):
        async with database.write() as session:
            await Keys(session).insert(key(account, "bastide_a"))


async def test_revoked_tokens_are_remembered_until_they_expire(database: Database) -> None:
    """Revoking twice is harmless, and rows go once they are of no use."""
    at = now()
    async with database.write() as session:
        rows = RevokedTokens(session)
        await rows.add("old", at - timedelta(hours=1))
        await rows.add("new", at + timedelta(hours=1))
        await rows.add("new", at + timedelta(hours=1))
        await rows.forget_expired(at)
        assert not await rows.contains("old")
        assert await rows.contains("new")


async def test_the_first_account_is_the_oldest(database: Database) -> None:
    """Which account is the first does not depend on ids."""
    async with database.read() as session:
        assert await Accounts(session).first() is None
    first = await add_account(database)
    second = await add_account(database, "two")
    async with database.read() as session:
        found = await Accounts(session).first()
        every = await Accounts(session).all()
    assert found is not None
    assert found.id == first.id
    assert [row.id for row in every] == [first.id, second.id]
