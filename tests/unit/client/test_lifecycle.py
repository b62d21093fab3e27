"""Lifecycle, leases, sizes, quota and prices through a scripted server."""

from __future__ import annotations

import pytest
from tests.unit.client.server import Server, body_of, error, good

from bastide.client import ConflictError

LIFECYCLE = {"mode": "temporary", "status": "running", "ttl": "1h", "ttl_action": "stop"}


def test_leases_send_what_was_given() -> None:
    """Each call has its path, and a body with nothing that was left out."""
    server = Server()
    base = "/workspace/ws_1/lifecycle"
    server.on("POST", f"{base}/temporary", good(**LIFECYCLE))
    server.on("PUT", f"{base}/ttl", good(**LIFECYCLE))
    server.on("POST", f"{base}/permanent", good(mode="permanent", status="running"))
    server.on("POST", "/workspace/ws_1/ping", good(ttl="1h", ttl_expires_at="2026-01-01T00:00:00Z"))
    with server.client() as cloud:
        made = cloud.workspaces.make_temporary("ws_1", 60, ttl_action="pause")
        cloud.workspaces.update_ttl("ws_1", ttl_action="stop")
        cloud.workspaces.make_permanent("ws_1")
        assert cloud.workspaces.ping("ws_1", ttl_seconds=5).ttl == "1h"
    assert (made.mode, made.ttl) == ("temporary", "1h")
    assert [body_of(request) for request in server.requests] == [
        {"ttl": 60, "ttl_action": "pause"},
        {"ttl_action": "stop"},
        {},
        {"ttl_seconds": 5},
    ]


def test_a_resize_tells_what_changed() -> None:
    """Sizes are applied at once unless asked otherwise; a refusal is a conflict."""
    server = Server()
    path = "/workspace/ws_1/resources"
    done = good(updated={"cpus": 0.5}, relaunched=False, resources={"cpus": 0.5})
    server.on("PATCH", path, done, error(409, "conflict", "300 MiB of memory are in use."))
    with server.client() as cloud:
        resized = cloud.workspaces.resize("ws_1", cpus=0.5)
        assert resized.updated == {"cpus": 0.5}
        with pytest.raises(ConflictError, match="in use"):
            cloud.workspaces.resize("ws_1", memory_mb=128, apply=False)
    assert [body_of(request) for request in server.requests] == [
        {"cpus": 0.5, "apply": True},
        {"memory_mb": 128, "apply": False},
    ]


def test_a_failed_creation_is_tried_again() -> None:
    """The call answers with the workspace as it is then; whoever wants waits."""
    server = Server()
    again = good(workspace={"id": "ws_1", "name": "w", "status": "creating"})
    refused = error(409, "conflict", "This cannot be done now.")
    server.on("POST", "/workspace/ws_1/provisioning/retry", again, refused)
    with server.client() as cloud:
        assert cloud.workspaces.retry("ws_1").status == "creating"
        with pytest.raises(ConflictError):
            cloud.workspaces.retry("ws_1")


async def test_the_same_for_asyncio() -> None:
    """The asynchronous client has the same calls."""
    server = Server()
    server.on("POST", "/workspace/ws_1/pause", good())
    server.on("POST", "/workspace/ws_1/resume", good())
    server.on("DELETE", "/workspace/ws_1/lifecycle", good())
    server.on("POST", "/workspace/ws_1/reinstall", good())
    server.on("GET", "/workspace/quota", good(canCreate=False, reason="full", maxWorkspaces=3))
    estimate = {"min": 1, "avg": 2, "max": 3}
    server.on("GET", "/workspace/estimate", good(estimate=estimate, period="month"))
    async with server.async_client() as cloud:
        await cloud.workspaces.pause("ws_1")
        await cloud.workspaces.resume("ws_1")
        await cloud.workspaces.destroy("ws_1")
        await cloud.workspaces.reinstall("ws_1")
        quota = await cloud.workspaces.quota()
        found = await cloud.workspaces.estimate(cpus=2)
    assert (quota.can_create, quota.reason, quota.max_workspaces) == (False, "full", 3)
    assert (found.max, found.period) == (3, "month")
    assert server.requests[-1].url.params["cpu"] == "2"
