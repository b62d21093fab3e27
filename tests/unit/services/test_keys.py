"""API keys: issued once, checked in constant time, gone when revoked."""

from __future__ import annotations

import hmac
from datetime import timedelta

import pytest
from tests.unit.store.rows import add_account, add_workspace

from bastide.domain.errors import Forbidden, NotFound, Unauthorized, ValidationFailed
from bastide.domain.instant import now
from bastide.domain.scope import Scope
from bastide.services.caller import Caller
from bastide.services.keys import KeyService, hash_secret
from bastide.store.database import Database
from bastide.store.keys import Keys


@pytest.fixture
async def admin(database: Database) -> Caller:
    account = await add_account(database)
    return Caller(account.id, Scope.ADMIN, "test")


async def test_a_key_opens_what_it_was_issued_for(database: Database, admin: Caller) -> None:
    """Each scope comes back from authentication as it was given."""
    service = KeyService(database)
    account = await add_account(database, "other")
    other = Caller(account.id, Scope.ADMIN, "test")
    workspace = await add_workspace(database, account, slug="mine")
    for scope, given, expected in (
        (Scope.ADMIN, {}, (None, None)),
        (Scope.BILLING, {}, (None, None)),
        (Scope.NAMESPACE, {"namespace": "shop"}, ("shop", None)),
        (Scope.WORKSPACE, {"workspace": "mine"}, (None, workspace.id)),
    ):
        issued = await service.create(other, scope, **given)
        caller = await service.authenticate(issued.client_id, issued.client_secret)
        assert (caller.account_id, caller.scope) == (account.id, scope)
        assert (caller.namespace, caller.workspace_id) == expected
    assert len(await service.all(other)) == 4
    assert await service.all(admin) == []


async def test_only_the_hash_is_kept(database: Database, admin: Caller) -> None:
    """The database never sees the secret, and nothing prints it."""
    issued = await KeyService(database).create(admin, Scope.ADMIN)
    async with database.read() as session:
        row = await Keys(session).by_client(issued.client_id)
    assert row is not None
    assert row.secret_hash == hash_secret(issued.client_secret)
    values = [str(getattr(row, column.name)) for column in row.__table__.columns]
    assert all(issued.client_secret not in value for value in values)
    assert issued.client_secret not in repr(issued)


async def test_wrong_unknown_and_revoked_are_all_the_same(
    database: Database, admin: Caller
) -> None:
    """The refusal does not tell which half was wrong."""
    service = KeyService(database)
    issued, revoked = [await service.create(admin, Scope.ADMIN) for _ in range(2)]
    await service.revoke(admin, revoked.key.id)
    messages = set()
    for client, secret in (
        (issued.client_id, "sk_wrong"),
        (issued.client_id, revoked.client_secret),
        ("bastide_unknown", issued.client_secret),
        (revoked.client_id, revoked.client_secret),
        ("\x00", "\x00"),
        ("x" * 10_000, "y" * 10_000),
        (issued.client_id, "\udcff"),
    ):
        with pytest.raises(Unauthorized) as caught:
            await service.authenticate(client, secret)
        messages.add(caught.value.message)
    assert len(messages) == 1


async def test_every_check_compares_in_constant_time(
    database: Database, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known or unknown, a secret is judged by hmac.compare_digest over two equal-length hashes."""
    service = KeyService(database)
    issued = await service.create(admin, Scope.ADMIN)
    compared: list[tuple[int, int]] = []

    def compare(one: str, two: str) -> bool:
        compared.append((len(one), len(two)))
        return real(one, two)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    await service.authenticate(issued.client_id, issued.client_secret)
    for client in (issued.client_id, "bastide_unknown"):
        with pytest.raises(Unauthorized):
            await service.authenticate(client, "sk_x")
    assert compared == [(64, 64)] * 3


async def test_use_is_noted_once_a_minute(database: Database, admin: Caller) -> None:
    """The time of use is kept without a write per request."""
    service = KeyService(database)
    issued = await service.create(admin, Scope.ADMIN)

    async def used() -> object:
        await service.authenticate(issued.client_id, issued.client_secret)
        async with database.read() as session:
            row = await Keys(session).by_client(issued.client_id)
        assert row is not None
        return row.last_used_at

    first = await used()
    assert first is not None
    assert await used() == first
    long_ago = now() - timedelta(hours=1)
    async with database.write() as session:
        await Keys(session).touch(issued.key.id, long_ago)
    assert await used() not in {first, long_ago}


async def test_namespace_and_workspace_belong_to_their_scopes(
    database: Database, admin: Caller
) -> None:
    """What does not fit the scope is named and refused."""
    service = KeyService(database)
    for scope, given, field in (
        (Scope.NAMESPACE, {}, "namespace"),
        (Scope.NAMESPACE, {"namespace": "Not A Slug"}, "namespace"),
        (Scope.NAMESPACE, {"namespace": "a\n"}, "namespace"),
        (Scope.WORKSPACE, {}, "workspaceId"),
        (Scope.ADMIN, {"namespace": "shop"}, "namespace"),
        (Scope.BILLING, {"workspace": "ws_1"}, "workspaceId"),
        (Scope.ADMIN, {"label": "a\x00b"}, "label"),
    ):
        with pytest.raises(ValidationFailed) as caught:
            await service.create(admin, scope, **given)
        assert caught.value.field == field


async def test_only_admins_manage_keys_and_only_their_own(
    database: Database, admin: Caller
) -> None:
    """Narrow credentials cannot widen themselves; other accounts' keys do not exist."""
    service = KeyService(database)
    issued = await service.create(admin, Scope.ADMIN)
    for scope in (Scope.NAMESPACE, Scope.WORKSPACE, Scope.BILLING):
        narrow = Caller(admin.account_id, scope, "narrow", namespace="a", workspace_id="ws_1")
        with pytest.raises(Forbidden):
            await service.create(narrow, Scope.ADMIN)
        with pytest.raises(Forbidden):
            await service.all(narrow)
        with pytest.raises(Forbidden):
            await service.revoke(narrow, issued.client_id)
    stranger = Caller((await add_account(database, "two")).id, Scope.ADMIN, "stranger")
    for reference in (issued.client_id, issued.key.id, "\x00", "key_none"):
        with pytest.raises(NotFound):
            await service.revoke(stranger, reference)
    workspace = await add_workspace(database, await add_account(database, "three"))
    with pytest.raises(NotFound):
        await service.create(admin, Scope.WORKSPACE, workspace=workspace.id)
