"""Bearer tokens: what is issued, what is accepted, what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from tests.unit.store.rows import add_account, add_workspace

from bastide.domain.errors import BadRequest, Forbidden, Unauthorized, ValidationFailed
from bastide.domain.instant import now
from bastide.domain.scope import Scope
from bastide.gateway.keys import control_key, gateway_key
from bastide.gateway.tokens import Kind, mint
from bastide.services.caller import Caller
from bastide.services.tokens import AUDIENCE, ISSUER, TokenService
from bastide.settings import Settings
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BASTIDE_CONFIG", str(tmp_path / "none.toml"))
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def service(database: Database, settings: Settings) -> TokenService:
    return TokenService(database, settings)


@pytest.fixture
async def workspace(database: Database) -> Workspace:
    return await add_workspace(database, await add_account(database), slug="mine")


@pytest.fixture
def admin(workspace: Workspace) -> Caller:
    return Caller(workspace.account_id, Scope.ADMIN, "test")


async def test_scoped_tokens_open_their_scope(
    service: TokenService, admin: Caller, workspace: Workspace
) -> None:
    """A token comes back as the scope it was issued for, by id or slug."""
    shop = await service.issue(admin, Scope.NAMESPACE, namespace="shop")
    caller = await service.authenticate(shop.token)
    assert (caller.account_id, caller.scope, caller.namespace, caller.workspace_id) == (
        admin.account_id,
        Scope.NAMESPACE,
        "shop",
        None,
    )
    assert shop.ttl == 900
    for reference in ("mine", workspace.id):
        lone = await service.issue(admin, Scope.WORKSPACE, workspace=reference, ttl=60)
        caller = await service.authenticate(lone.token)
        assert (caller.scope, caller.workspace_id) == (Scope.WORKSPACE, workspace.id)
        assert lone.expires_at <= now() + timedelta(seconds=60)


async def test_wrong_requests_are_refused(
    service: TokenService, admin: Caller, database: Database
) -> None:
    """Fields are checked, foreign workspaces do not exist, narrow credentials issue nothing."""
    foreign = await add_workspace(database, await add_account(database, "two"))
    for given, field in (
        ({"ttl": 0, "namespace": "a"}, "ttl"),
        ({"ttl": 3601, "namespace": "a"}, "ttl"),
        ({}, "namespace"),
        ({"namespace": "No!"}, "namespace"),
    ):
        with pytest.raises(ValidationFailed) as caught:
            await service.issue(admin, Scope.NAMESPACE, **given)
        assert caught.value.field == field
    with pytest.raises(ValidationFailed):
        await service.issue(admin, Scope.WORKSPACE)
    with pytest.raises(ValidationFailed):
        await service.issue(admin, Scope.ADMIN)
    for reference in ("ws_none", foreign.id, "\x00"):
        with pytest.raises(BadRequest):
            await service.issue(admin, Scope.WORKSPACE, workspace=reference)
    for scope in (Scope.NAMESPACE, Scope.WORKSPACE, Scope.BILLING):
        narrow = Caller(admin.account_id, scope, "narrow", namespace="shop")
        with pytest.raises(Forbidden, match="required: admin"):
            await service.issue(narrow, Scope.NAMESPACE, namespace="shop")


async def test_a_revoked_token_is_dead(service: TokenService, admin: Caller) -> None:
    """Taking back a token ends it at once, and only it."""
    one, two = [await service.issue(admin, Scope.NAMESPACE, namespace="a") for _ in range(2)]
    await service.revoke(one.token)
    await service.revoke(one.token)
    with pytest.raises(Unauthorized):
        await service.authenticate(one.token)
    await service.authenticate(two.token)
    with pytest.raises(Unauthorized):
        await service.revoke("nonsense")


async def test_foreign_signatures_and_claims_are_refused(
    service: TokenService, admin: Caller, settings: Settings
) -> None:
    """Only what we signed, for this API, in force, with every claim, opens anything."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": admin.account_id,
        "scope": "namespace",
        "ns": "a",
        "jti": "0",
        "iat": int(now().timestamp()),
        "exp": int(now().timestamp()) + 60,
    }
    key = control_key(settings)
    await service.authenticate(jwt.encode(good, key, algorithm="HS256"))
    wrong = [
        jwt.encode(good, "0" * 64, algorithm="HS256"),
        jwt.encode(good, gateway_key(settings), algorithm="HS256"),
        jwt.encode(good, "", algorithm="none"),
        jwt.encode(good, key, algorithm="HS512"),
        jwt.encode({**good, "exp": good["iat"]}, key, algorithm="HS256"),
        jwt.encode({**good, "aud": "bastide-gateway"}, key, algorithm="HS256"),
        jwt.encode({**good, "iss": "other"}, key, algorithm="HS256"),
        "",
        ".",
        "a.b.c",
        "é" * 10,
        "x" * 100_000,
    ]
    wrong += [
        jwt.encode({k: v for k, v in good.items() if k != name}, key, algorithm="HS256")
        for name in good
        if name != "ns"
    ]
    for token in wrong:
        with pytest.raises(Unauthorized):
            await service.authenticate(token)


async def test_the_workspace_token_opens_its_own_workspace(
    service: TokenService, workspace: Workspace, settings: Settings, database: Database
) -> None:
    """The 30-day token works while access is enabled and until it is rotated, and no other."""

    def token(kind: Kind, generation: int = 1, reference: str = workspace.id) -> str:
        text, _ = mint(
            gateway_key(settings),
            reference,
            generation,
            kind,
            "10.201.0.5",
            9990,
            timedelta(days=30),
            now(),
        )
        return text

    with pytest.raises(Unauthorized):
        await service.authenticate(token("workspace"))
    async with database.write() as session:
        await Workspaces(session).update(workspace.id, {"runtime_enabled": True})
    caller = await service.authenticate(token("workspace"))
    assert (caller.account_id, caller.scope) == (workspace.account_id, Scope.WORKSPACE)
    assert caller.workspace_id == workspace.id
    for bad in (token("gateway"), token("workspace", 2), token("workspace", 1, "ws_" + "0" * 12)):
        with pytest.raises(Unauthorized):
            await service.authenticate(bad)
    async with database.write() as session:
        await Workspaces(session).update(workspace.id, {"generation": 2})
    with pytest.raises(Unauthorized):
        await service.authenticate(token("workspace"))
    await service.authenticate(token("workspace", 2))
    async with database.write() as session:
        await Workspaces(session).mark_deleted(workspace.id)
    with pytest.raises(Unauthorized):
        await service.authenticate(token("workspace", 2))
