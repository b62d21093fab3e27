"""Which tokens open a workspace at the edge (threat: JWT confusion)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from tests.host.edge.stage import ONE, RAW_ONE, TWO, Stage

from bastide.gateway.tokens import AUDIENCE, ISSUER

pytestmark = pytest.mark.host


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    right = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "ws": ONE,
        "gen": 1,
        "kind": "gateway",
        "ip": "127.0.0.11",
        "port": 9990,
        "iat": now,
        "exp": now + 600,
        "jti": "j",
    } | changes
    return {name: value for name, value in right.items() if value is not None}


def signed(key: str, head: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token of these claims, HMAC-SHA256 whatever its header says."""

    def part(document: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")

    first = part({"alg": "HS256", "typ": "JWT"} if head is None else head)
    text = first + b"." + part(claims(**changes))
    signature = hmac.new(key.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


REFUSED: dict[str, Callable[[str], str]] = {
    "garbage": lambda _: "garbage",
    "dots": lambda _: "..",
    "empty parts": lambda _: "a.b.c",
    "raw token": lambda _: RAW_ONE,
    "alg none": lambda _: jwt.encode(claims(), "", algorithm="none"),
    "alg none, signed": lambda key: signed(key, {"alg": "none"}),
    "alg nOnE": lambda key: signed(key, {"alg": "nOnE"}),
    "alg hs256": lambda key: signed(key, {"alg": "hs256"}),
    "alg RS256": lambda key: signed(key, {"alg": "RS256"}),
    "alg HS384": lambda key: jwt.encode(claims(), key, algorithm="HS384"),
    "alg is a list": lambda key: signed(key, {"alg": ["HS256"]}),
    "no alg": lambda key: signed(key, {}),
    "wrong key": lambda _: signed("0" * 64),
    "empty key": lambda _: signed(""),
    "key in a kid": lambda _: signed("0" * 64, {"alg": "HS256", "kid": "../../dev/null"}),
    "key in a jwk": lambda _: signed(
        "0" * 64, {"alg": "HS256", "jwk": {"kty": "oct", "k": "MDAw"}}
    ),
    "no signature": lambda key: signed(key).rpartition(".")[0] + ".",
    "cut signature": lambda key: signed(key)[:-2],
    "two tokens": lambda key: signed(key) + "." + signed(key),
    "payload of another": lambda key: ".".join(
        [
            *signed(key).split(".")[:1],
            signed("0" * 64, ws=TWO).split(".")[1],
            *signed(key).split(".")[2:],
        ]
    ),
    "expired": lambda key: signed(key, exp=int(time.time()) - 1),
    "expires now": lambda key: signed(key, exp=int(time.time())),
    "no exp": lambda key: signed(key, exp=None),
    "exp is text": lambda key: signed(key, exp="never"),
    "exp is beyond numbers": lambda key: signed(key, exp=-(2**62)),
    "wrong aud": lambda key: signed(key, aud="bastide-api"),
    "no aud": lambda key: signed(key, aud=None),
    "aud list": lambda key: signed(key, aud=[AUDIENCE, "bastide-api"]),
    "wrong iss": lambda key: signed(key, iss="somebody"),
    "old generation": lambda key: signed(key, gen=0),
    "future generation": lambda key: signed(key, gen=2),
    "no generation": lambda key: signed(key, gen=None),
    "generation is text": lambda key: signed(key, gen="1 or so"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(stage: Stage, client: httpx.AsyncClient, name: str) -> None:
    """Every token but a right one gets 401 in the envelope and never reaches a workspace."""
    token = REFUSED[name](stage.key)
    answer = await client.get("/health", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401, answer.text
    body = answer.json()
    assert body["success"] is False
    assert body["error"] == body["code"] == "unauthorized"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert not stage.one.seen
    assert not stage.two.seen
    if len(token) > 10:
        assert token not in stage.log.read_text()


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic dTpw", "Token x"])
async def test_without_token(client: httpx.AsyncClient, stage: Stage, value: str | None) -> None:
    """No token, or another scheme, is 401."""
    headers = {} if value is None else {"Authorization": value}
    answer = await client.get("/health", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert not stage.one.seen


async def test_right_token(stage: Stage, client: httpx.AsyncClient) -> None:
    """A right token of either kind passes; the scheme's name may have any case."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        token = stage.token(kind="workspace" if scheme == "BEARER" else "gateway")
        answer = await client.get("/health", headers={"Authorization": f"{scheme} {token}"})
        assert answer.status_code == 200, scheme
        assert answer.json()["server"] == "one"


async def test_two_authorization_headers(stage: Stage) -> None:
    """Two Authorization headers are ambiguous and refused."""
    right = f"Authorization: Bearer {stage.token()}\r\n"
    wrong = f"Authorization: Bearer {stage.token(TWO, 9)}\r\n"
    for lines in (right + wrong, wrong + right, right + right):
        request = f"GET /health HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{lines}\r\n"
        answer = await stage.raw(request.encode())
        assert b" 400 " in answer.split(b"\r\n")[0]
    assert not stage.one.seen


async def test_claims_do_not_route(stage: Stage, client: httpx.AsyncClient) -> None:
    """A signed token that names another machine's address reaches its own workspace."""
    token = signed(stage.key, ip="127.0.0.12", port=1)
    answer = await client.get("/health", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["server"] == "one"


async def test_unknown_workspace(stage: Stage, client: httpx.AsyncClient) -> None:
    """A token of a workspace the map does not have is 404."""
    for workspace in ("ws_99999999", "", "open:1", "ws_00000001 "):
        token = signed(stage.key, ws=workspace)
        answer = await client.get("/health", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"


async def test_rotation(stage: Stage, client: httpx.AsyncClient) -> None:
    """After a rotation the old token is dead and the new one gets the new raw token."""
    old = stage.bearer()
    assert (await client.get("/health", headers=old)).status_code == 200
    await stage.edge.publish(ONE, "127.0.0.11", 2, "open", "c" * 64)
    answer = await client.get("/health", headers=old)
    assert answer.status_code == 401
    assert "rotation" in answer.json()["message"]
    answer = await client.get("/health", headers=stage.bearer(ONE, 2))
    assert ["authorization", "Bearer " + "c" * 64] in answer.json()["headers"]
