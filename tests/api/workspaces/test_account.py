"""Quota, estimate and details."""

from __future__ import annotations

import pytest
from tests.api.workspaces.cloud import Cloud


async def test_quota_and_estimate(cloud: Cloud) -> None:
    """What is owned and running is counted; prices follow the settings' table."""
    await cloud.create(config={"cpus": 2, "memory_mb": 1024})
    second = await cloud.create()
    await cloud.call("POST", f"/workspace/{second['id']}/stop")
    quota = await cloud.call("GET", "/workspace/quota")
    assert quota["canCreate"] is True
    assert (quota["currentWorkspaces"], quota["currentSandboxes"]) == (2, 2)
    assert quota["pool_usage"]["memory_mb"] == 1024 + 512
    assert quota["running_pool_usage"] == {
        "count": 1, "cpus": 2.0, "memory_mb": 1024, "disk_size_mb": 4096
    }  # fmt: skip
    assert quota["limits"]["cpus"] == 32
    path = "/workspace/estimate?cpu=2&ram_mb=2048&disk_mb=10240"
    found = await cloud.call("GET", path)
    assert found["period"] == "month"
    held = 2 * 0.6 * 730 + 10 * 10.0
    assert found["estimate"]["min"] == pytest.approx(held)
    assert found["estimate"]["max"] == pytest.approx(held + 2 * 5.0 * 730)
    await cloud.call("GET", "/workspace/estimate?cpu=many", status=422)
    await cloud.call("GET", "/workspace/estimate?cpu=-1", status=422)


async def test_details_tell_everything(cloud: Cloud) -> None:
    """Workspace, use, token and lifecycle together; what does not run has no use."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    shown = await cloud.call("GET", f"{path}/details")
    assert shown["workspace"]["id"] == found["id"]
    assert shown["lifecycle"]["status"] == "running"
    assert shown["stats"]["memory_bytes"] > 0
    assert (shown["token"], shown["api_access"]["enabled"]) == (None, False)
    for part in ("ssh", "lifecycle"):  # as their own calls tell them
        told = await cloud.call("GET", f"{path}/{part}")
        told.pop("success")
        assert {**shown[part], "uptime": 0} == {**told, "uptime": 0}
    assert shown["config"] == shown["workspace"]["config"]
    assert set(shown) >= {"workspace", "token", "stats", "ssh", "api_access", "lifecycle", "config"}
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    assert (await cloud.call("GET", f"{path}/details"))["token"]
    await cloud.call("POST", f"{path}/stop")
    assert (await cloud.call("GET", f"{path}/details"))["stats"] is None
