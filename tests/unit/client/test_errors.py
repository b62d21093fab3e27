"""Errors by code and by status."""

from __future__ import annotations

import httpx
import pytest
from tests.unit.client.server import Server, error

from bastide import client
from bastide.client import (
    ApiError,
    AuthenticationError,
    ConflictError,
    ConnectionFailed,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnavailableError,
    ValidationError,
)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_request", ApiError),
        (400, "validation_error", ValidationError),
        (401, "invalid_credentials", AuthenticationError),
        (402, "RUNNING_POOL_REACHED", PaymentRequiredError),
        (403, "forbidden", PermissionDeniedError),
        (404, "not_found", NotFoundError),
        (409, "SANDBOX_LIMIT_REACHED", ConflictError),
        (422, "validation_error", ValidationError),
        (429, "rate_limited", RateLimitedError),
        (500, "server_error", ServerError),
        (503, "VM_UNAVAILABLE", UnavailableError),
    ],
)
def test_each_refusal_has_its_type(status: int, code: str, kind: type[ApiError]) -> None:
    """Code and status choose the exception, which carries everything the answer said."""
    server = Server()
    details = {"field": "port"}
    answer = error(status, code, "said", details=details, request_id="req_1")
    server.on("GET", "/workspace/ws_1", answer)
    with server.client() as cloud, pytest.raises(kind) as caught:
        cloud.workspaces.get("ws_1")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, code)
    assert (caught.value.message, caught.value.details) == ("said", details)
    assert caught.value.request_id == "req_1"


def test_an_answer_that_is_no_json_is_told_shortly() -> None:
    """A page of a proxy becomes an error with its status and the start of its text."""
    server = Server()
    server.on("GET", "/workspace/ws_1", httpx.Response(500, text="<html>" + "x" * 10_000))
    with server.client() as cloud, pytest.raises(ServerError) as caught:
        cloud.workspaces.get("ws_1")
    assert caught.value.code == "server_error"
    assert len(caught.value.message) <= 500


def test_success_false_is_an_error_at_any_status() -> None:
    """A 200 that says `success: false` raises."""
    server = Server()
    server.on("GET", "/workspace/ws_1", error(200, "CREATE_FAILED"))
    with server.client() as cloud, pytest.raises(ApiError) as caught:
        cloud.workspaces.get("ws_1")
    assert caught.value.code == "CREATE_FAILED"


def test_no_answer_is_one_error() -> None:
    """A server that is not there is told with its address after the tries are used up."""
    server = Server()
    server.on("GET", "/workspace/ws_1", httpx.ConnectError("refused"))
    with server.client() as cloud, pytest.raises(ConnectionFailed, match="refused"):
        cloud.workspaces.get("ws_1")
    assert len(server.requests) == 5


def test_public_names_are_sorted_and_exist() -> None:
    """`__all__` is sorted and each name is there."""
    assert client.__all__ == sorted(client.__all__)
    assert all(hasattr(client, name) for name in client.__all__)
