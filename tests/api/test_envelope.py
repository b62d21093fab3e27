"""Envelope, request ids and refusals that every path shares."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from sqlalchemy.exc import OperationalError
from tests.api.stage import Stage, check_envelope, refusal

from bastide.api.body import LIMIT
from bastide.services.keys import KeyService

JSON = {"Content-Type": "application/json"}


async def test_success_has_the_envelope(stage: Stage) -> None:
    """A good answer says so, and carries a request id."""
    response = await stage.client.get("/keys")
    assert response.status_code == 200
    assert check_envelope(response)["success"] is True
    assert response.headers["X-Request-ID"].startswith("req_")


async def test_a_given_request_id_is_taken_over(stage: Stage) -> None:
    """A plausible id of the client's goes through; anything else is replaced."""
    for given in ("abc-123_DEF.456", "0123456789abcdef" * 8):
        response = await stage.client.get("/nothing", headers={"X-Request-ID": given})
        assert check_envelope(response)["request_id"] == given
    for given in ("short", "x" * 129, "has space in it", 'quote"and\\slash', "é" * 10):
        response = await stage.client.get(
            "/nothing", headers=[(b"X-Request-ID", given.encode("latin-1"))]
        )
        assert check_envelope(response)["request_id"].startswith("req_")


async def test_unknown_paths_and_methods(stage: Stage) -> None:
    """404 and 405 are in the envelope too, and say what there is."""
    for path in ("/nothing", "/tokens/", "/", "//", "/%00", "/keys/a/b"):
        refusal(await stage.client.get(path), 404, "not_found")
    response = await stage.client.put("/tokens")
    body = refusal(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
    assert "POST" in body["message"]
    for method in ("HEAD", "OPTIONS", "TRACE", "BREW"):
        assert (await stage.client.request(method, "/tokens")).status_code == 405


@pytest.mark.parametrize(
    "body",
    [b"{", b"nope", b'{"a":}', b"\xff\xfe\x00", b'{"scope": "\xff"}', b"[" * 100_000, b"{}}"],
    ids=["open", "word", "value", "bytes", "utf8", "deep", "more"],
)
async def test_malformed_json_is_a_bad_request(stage: Stage, body: bytes) -> None:
    """What is no JSON is refused as a whole."""
    refusal(await stage.client.post("/tokens", content=body, headers=JSON), 400, "bad_request")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true", b"NaN", b""])
async def test_json_that_is_no_object_is_refused(stage: Stage, body: bytes) -> None:
    """The body must be an object, and the message says so."""
    response = await stage.client.post("/tokens", content=body, headers=JSON)
    refused = refusal(response, 422, "validation_error")
    assert refused["details"]["field"] == "body"
    assert "JSON object" in refused["message"]


async def test_empty_bodies_are_fine_where_all_is_optional(stage: Stage) -> None:
    """The vendor's client announces JSON on every method and sends nothing (1.1)."""
    for method, path, status in (("GET", "/keys", 200), ("DELETE", "/keys/key_none", 404)):
        response = await stage.client.request(method, path, headers=JSON)
        assert response.status_code == status


async def test_a_wrong_field_is_named_with_what_is_allowed(stage: Stage) -> None:
    """Every wrong field is in the details, the first in the message."""
    body = {"scope": "planet", "ttl": 99999, "label": "x" * 300}
    refused = refusal(await stage.client.post("/tokens", json=body), 422, "validation_error")
    assert refused["details"]["field"] == "scope"
    assert refused["message"] == "scope must be 'namespace' or 'workspace'."
    named = {error["field"]: error["message"] for error in refused["details"]["errors"]}
    assert set(named) == {"scope", "ttl", "label"}
    assert named["ttl"] == "ttl must be less than or equal to 3600."


async def test_hostile_text_comes_back_as_valid_json(stage: Stage) -> None:
    """Lone surrogates, control characters and long names neither break nor bloat the answer."""
    content = json.dumps({"scope": "\ud800", "namespace": "\x00" * 50_000}).encode()
    response = await stage.client.post("/tokens", content=content, headers=JSON)
    check_envelope(response)
    assert response.status_code == 422
    assert len(response.content) < 2000


async def test_bodies_over_the_limit_are_refused(stage: Stage) -> None:
    """Announced or not, more than 1 MiB is not read."""
    response = await stage.client.post("/tokens", content=b"x" * (LIMIT + 1), headers=JSON)
    refusal(response, 413, "payload_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 65536 + 1):
            yield b" " * 65536

    response = await stage.client.post("/tokens", content=chunks(), headers=JSON)
    refusal(response, 413, "payload_too_large")
    for length in ("-1", "1e9", "9" * 50, "x"):
        response = await stage.client.post("/tokens", headers={**JSON, "Content-Length": length})
        refusal(response, 413, "payload_too_large")
    exact = b'{"scope": 1}'.ljust(LIMIT)
    response = await stage.client.post("/tokens", content=exact, headers=JSON)
    refusal(response, 422, "validation_error")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (RuntimeError("secret thing"), 500, "server_error"),
        (OperationalError("SELECT secret thing", {}, Exception("gone")), 503, "not_ready"),
        (ConnectionRefusedError("secret thing"), 503, "not_ready"),
    ],
)
async def test_unexpected_exceptions_say_nothing_inside(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    status: int,
    code: str,
) -> None:
    """A defect answers in the envelope with the request id; what broke is only in the log."""

    async def fail(self: KeyService, caller: object) -> None:
        raise failure

    monkeypatch.setattr(KeyService, "all", fail)
    with structlog.testing.capture_logs() as lines:
        response = await stage.client.get("/keys")
    body = refusal(response, status, code)
    assert "secret" not in response.text
    failed = next(line for line in lines if line["event"] == "request failed")
    assert failed["log_level"] == "error"
    assert body["request_id"] == response.headers["X-Request-ID"]


async def test_logs_hold_no_secret(stage: Stage) -> None:
    """Neither the access log nor refusals repeat credentials or queries."""
    secret = stage.admin["X-Client-Secret"]
    with structlog.testing.capture_logs() as lines:
        await stage.client.get("/keys?token=hidden-query")
        await stage.client.post("/tokens", json={"scope": "namespace", "namespace": "shop"})
        await stage.client.get("/keys", headers={"X-Client-Secret": "sk_guess"})
    text = repr(lines)
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 201, 401]
    for hidden in (secret, "hidden-query", "sk_guess", "eyJ"):
        assert hidden not in text


async def test_public_paths_answer_anybody_and_reveal_nothing(
    stage: Stage, anyone: httpx.AsyncClient
) -> None:
    """Health, metrics and the description need no credentials and name nobody's things."""
    made = await stage.row(name="very-private", slug="very-private")
    await stage.client.get(f"/workspace/{made.id}")
    await stage.client.get("/very-private")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        response = await anyone.get(path)
        assert response.status_code == 200, path
        for private in (made.id, "very-private", stage.account.id, stage.admin["X-Client-ID"]):
            assert private not in response.text
    assert "bastide_http_requests_total" in (await anyone.get("/metrics")).text


async def test_the_docs_page_loads_only_from_here(anyone: httpx.AsyncClient) -> None:
    """The page that people type credentials into holds nothing of other servers."""
    page = (await anyone.get("/docs")).text
    assert "https://" not in page
    assert (await anyone.get("/docs/static/swagger-ui-bundle.js")).status_code == 200


async def test_readiness_follows_the_database(
    stage: Stage, anyone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its database the server is alive and not ready."""

    async def fail(self: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(type(stage.services.database), "ping", fail)
    refusal(await anyone.get("/readyz"), 503, "not_ready")
    assert (await anyone.get("/healthz")).status_code == 200


async def test_the_description_is_complete(anyone: httpx.AsyncClient) -> None:
    """Every path says how to authenticate and what a failure looks like."""
    document = (await anyone.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"ClientId", "ClientSecret", "Token"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "default" in operation["responses"], (method, path)
            assert operation["summary"], (method, path)
