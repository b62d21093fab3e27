"""Errors by code and by status."""

from __future__ import annotations

import math
from collections.abc import Callable

import httpx
import pytest
from tests.unit.client.server import Server, error

from bastide import client
from bastide.client import (
    ApiError,
    AuthenticationError,
    ConflictError,
    ConnectionBroken,
    ConnectionFailed,
    InvalidValue,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnavailableError,
    ValidationError,
)
from bastide.client._workspaces import Workspaces


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


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("peer closed connection"),
        httpx.WriteError("reset"),
    ],
)
def test_a_connection_that_broke_is_told_apart(failure: Exception) -> None:
    """The server was there: nobody is told that it did not answer."""
    server = Server()
    server.on("POST", "/workspace/ws_1/restart", failure)
    with server.client() as cloud, pytest.raises(ConnectionBroken, match="broke") as caught:
        cloud.workspaces.restart("ws_1")
    assert "did not answer" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda all_: all_.resize("ws_1", cpus=math.nan), "cpus"),
        (lambda all_: all_.create(cpus=math.inf, wait=False), "config.cpus"),
        (lambda all_: all_.create(env={"A": "\udcff"}, wait=False), "config.env.0.value"),
        (lambda all_: all_.estimate(memory_mb=-math.inf), "ram_mb"),
        (lambda all_: all_.update("ws_1", config={"x": {"y": [1, math.nan]}}), "config.x.y.1"),
        (lambda all_: all_.get("\udcff"), "id"),
        (lambda all_: all_.runtime("ws_1").exec.run("true", timeout=math.nan), "timeout"),
    ],
)
def test_what_cannot_be_sent_is_refused(call: Callable[[Workspaces], object], field: str) -> None:
    """A number that is none, or bytes that are no text, is named before anything is sent."""
    server = Server()
    with server.client() as cloud, pytest.raises(InvalidValue, match=field) as caught:
        call(cloud.workspaces)
    assert isinstance(caught.value, ValidationError)
    assert caught.value.details == {"field": field}
    assert server.requests == []


def test_public_names_are_sorted_and_exist() -> None:
    """`__all__` is sorted and each name is there."""
    assert client.__all__ == sorted(client.__all__)
    assert all(hasattr(client, name) for name in client.__all__)
