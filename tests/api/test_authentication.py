"""Who gets in, and how far."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import jwt
import pytest
from tests.api.stage import Stage, check_envelope, headers_of, refusal

from bastide.api.authentication import PUBLIC, is_public
from bastide.domain.instant import now
from bastide.domain.scope import Scope
from bastide.gateway.keys import control_key, gateway_key
from bastide.gateway.tokens import mint
from bastide.services.caller import Caller
from bastide.services.tokens import AUDIENCE, ISSUER


def every_route(stage: Stage) -> list[tuple[str, str]]:
    """Method and path of everything that the description lists."""
    return [
        (method.upper(), re.sub(r"\{[^}]+\}", "ws_000000000000", path))
        for path, operations in stage.app.openapi()["paths"].items()
        for method in operations
    ]


async def test_nothing_is_reachable_without_credentials(
    stage: Stage, anyone: httpx.AsyncClient
) -> None:
    """Every path but the public ones answers 401, whatever the body; so do unknown ones."""
    private = [route for route in every_route(stage) if not is_public(route[1])]
    assert ("POST", "/tokens") in private
    for method, path in [*private, ("GET", "/nothing"), ("GET", "/docs/oauth2-redirect")]:
        response = await anyone.request(
            method, path, content=b"{not json", headers={"Content-Type": "application/json"}
        )
        refusal(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/docs/static/../../keys", "/docs/static/..%2f..%2fkeys", "/docs/static/%2e%2e/keys"]
)
async def test_public_prefixes_lead_nowhere_else(anyone: httpx.AsyncClient, path: str) -> None:
    """A detour through a public directory reaches nothing."""
    response = await anyone.get(path)
    assert response.status_code in {401, 404}


async def test_the_first_key_works(stage: Stage) -> None:
    """The credentials of the first start open the API."""
    body = check_envelope(await stage.client.get("/keys"))
    assert [key["label"] for key in body["keys"]] == ["first key"]


async def test_bad_credentials(stage: Stage, anyone: httpx.AsyncClient) -> None:
    """Half, wrong, unknown and revoked credentials are all 401."""
    client_id, secret = stage.admin.values()
    revoked, headers = await stage.key(Scope.ADMIN)
    assert (await anyone.get("/keys", headers=headers)).status_code == 200
    assert (await stage.client.delete(f"/keys/{revoked.client_id}")).status_code == 200
    for wrong in (
        headers,
        headers_of(client_id, "sk_wrong"),
        headers_of("bastide_unknown", secret),
        headers_of("é", "é"),
        {"X-Client-ID": client_id},
        {"X-Client-Secret": secret},
        {"X-Client-ID": "", "X-Client-Secret": ""},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {secret}"},
    ):
        encoded = [(name.encode(), value.encode()) for name, value in wrong.items()]
        refusal(await anyone.get("/keys", headers=encoded), 401, "unauthorized")


async def test_two_kinds_of_credentials_are_ambiguous(stage: Stage) -> None:
    """Key and token together are refused rather than guessed at."""
    response = await stage.client.get("/keys", headers={"Authorization": "Bearer x.y.z"})
    refusal(response, 400, "bad_request")


async def test_tokens_are_issued_as_specified(stage: Stage) -> None:
    """POST /tokens answers with the fields and defaults of the specification."""
    body = {"scope": "namespace", "namespace": "shop", "label": "ci", "unknown": 1}
    response = await stage.client.post("/tokens", json=body)
    issued = check_envelope(response)
    assert response.status_code == 201
    assert set(issued) == {"success", "token", "expiresAt", "scope", "ttl"}
    assert (issued["scope"], issued["ttl"]) == ("namespace", 900)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", issued["expiresAt"])
    claims = jwt.decode(issued["token"], options={"verify_signature": False})
    assert claims["jti"]


async def test_token_fields_are_checked(stage: Stage) -> None:
    """Each wrong field is named."""
    for body, field in (
        ({}, "scope"),
        ({"scope": "admin"}, "scope"),
        ({"scope": "namespace"}, "namespace"),
        ({"scope": "namespace", "namespace": 5}, "namespace"),
        ({"scope": "namespace", "namespace": "a b"}, "namespace"),
        ({"scope": "workspace"}, "workspaceId"),
        ({"scope": "namespace", "namespace": "a", "ttl": 0}, "ttl"),
        ({"scope": "namespace", "namespace": "a", "ttl": 3601}, "ttl"),
        ({"scope": "namespace", "namespace": "a", "ttl": True}, "ttl"),
        ({"scope": "namespace", "namespace": "a", "ttl": "900"}, "ttl"),
        ({"scope": "namespace", "namespace": "a", "ttl": 10**30}, "ttl"),
        ({"scope": "namespace", "namespace": "a", "label": "a\nb"}, "label"),
    ):
        refused = refusal(await stage.client.post("/tokens", json=body), 422, "validation_error")
        assert refused["details"]["field"] == field
    other = await stage.services.accounts.create("two")
    foreign = await stage.row(other)
    for reference in ("ws_none", foreign.id):
        body = {"scope": "workspace", "workspaceId": reference}
        refused = refusal(await stage.client.post("/tokens", json=body), 400, "bad_request")
        assert refused["details"]["field"] == "workspaceId"


async def test_narrow_credentials_are_kept_out_of_admin_paths(
    stage: Stage, anyone: httpx.AsyncClient
) -> None:
    """Keys and tokens of every narrower scope are let in and then told which scope is needed."""
    made = await stage.row(runtime_enabled=True)
    narrow = {
        "namespace": (await stage.key(Scope.NAMESPACE, namespace="shop"))[1],
        "workspace": (await stage.key(Scope.WORKSPACE, workspace=made.id))[1],
        "billing": (await stage.key(Scope.BILLING))[1],
    }
    for scope, reach in (
        ("namespace", {"namespace": "a"}),
        ("workspace", {"workspaceId": made.id}),
    ):
        issued = await stage.client.post("/tokens", json={"scope": scope, **reach})
        narrow[f"{scope} token"] = {"Authorization": f"Bearer {issued.json()['token']}"}
    long_lived, _ = mint(
        gateway_key(stage.services.settings),
        made.id,
        1,
        "workspace",
        "10.201.0.5",
        9990,
        timedelta(days=30),
        now(),
    )
    narrow["workspace 30 days"] = {"Authorization": f"bearer {long_lived}"}
    for name, headers in narrow.items():
        for method, path, content in (
            ("POST", "/tokens", {"scope": "namespace", "namespace": "shop"}),
            ("GET", "/keys", None),
            ("POST", "/keys", {}),
            ("DELETE", "/keys/key_1", None),
        ):
            response = await anyone.request(method, path, json=content, headers=headers)
            refused = refusal(response, 403, "forbidden")
            assert f"scope: {name.split()[0]}, required: admin" in refused["message"]


async def test_expired_and_revoked_tokens(stage: Stage, anyone: httpx.AsyncClient) -> None:
    """A token that is over, or was taken back, opens nothing."""
    at = int(now().timestamp())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": stage.account.id, "scope": "namespace"}
    old = jwt.encode(
        {**claims, "ns": "a", "jti": "1", "iat": at - 60, "exp": at - 1},
        control_key(stage.services.settings),
        algorithm="HS256",
    )
    body = {"scope": "namespace", "namespace": "shop"}
    fresh = (await stage.client.post("/tokens", json=body)).json()["token"]
    await stage.services.tokens.revoke(fresh)
    for token in (old, fresh):
        response = await anyone.get("/keys", headers={"Authorization": f"Bearer {token}"})
        refusal(response, 401, "unauthorized")


async def test_keys_of_other_accounts_do_not_exist(stage: Stage, anyone: httpx.AsyncClient) -> None:
    """One account can neither see nor revoke the other's keys."""
    issued, headers = await stage.key(Scope.ADMIN)
    other = await stage.services.accounts.create("two")
    caller = Caller(other.id, Scope.ADMIN, "test")
    key = await stage.services.keys.create(caller, Scope.ADMIN)
    stranger = headers_of(key.client_id, key.client_secret)
    listed = check_envelope(await anyone.get("/keys", headers=stranger))
    assert [row["id"] for row in listed["keys"]] == [key.key.id]
    response = await anyone.delete(f"/keys/{issued.key.id}", headers=stranger)
    refusal(response, 404, "not_found")
    assert (await anyone.get("/keys", headers=headers)).status_code == 200


async def test_a_key_is_shown_once(stage: Stage, anyone: httpx.AsyncClient) -> None:
    """Making a key shows its secret; listing never does."""
    response = await stage.client.post("/keys", json={"scope": "namespace", "namespace": "shop"})
    made = check_envelope(response)["key"]
    assert response.status_code == 201
    headers = headers_of(made["client_id"], made["client_secret"])
    refusal(await anyone.get("/keys", headers=headers), 403, "forbidden")
    listed = await stage.client.get("/keys")
    assert made["client_secret"] not in listed.text
    assert "secret" not in listed.text
    assert made["id"] in listed.text


def test_the_public_paths_are_these() -> None:
    """Adding a public path is a decision that this list has to be told of."""
    assert set(PUBLIC) == {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
