"""POST /workspace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.api.workspaces.cloud import Cloud


async def test_a_created_workspace_becomes_ready(cloud: Cloud) -> None:
    """The answer comes at once with `provisioning`, and the workspace becomes ready by itself."""
    answer = await cloud.call("POST", "/workspace", {"name": "My App"}, status=201)
    found = answer["workspace"]
    assert found["id"].startswith("ws_")
    assert found["slug"] == "my-app"
    assert found["status"] == "creating"
    assert found["provisioning"]["state"] in {"queued", "running"}
    ready = await cloud.until(found["id"], lambda each: each["ready"])
    assert ready["provisioning"]["state"] == "ready"
    assert ready["provisioning"]["phase"] == "ready"
    assert ready["info"] == {
        "status": "running",
        "is_running": True,
        "user_requested_stop": False,
        "ready": True,
    }
    assert ready["resources"] == {
        "cpus": 1,
        "memory_mb": 512,
        "disk_size_mb": 4096,
        "writable_size_mb": 4096,
        "status": "running",
    }


async def test_an_empty_body_makes_a_default_workspace(cloud: Cloud) -> None:
    """Every field is optional; the name is invented."""
    answer = await cloud.http.post("/workspace")
    assert answer.status_code == 201
    found = answer.json()["workspace"]
    assert found["name"]
    assert found["image"] == "debian-12"
    assert found["mode"] == "permanent"
    assert found["namespace"] is None


async def test_the_configuration_reaches_the_machine(cloud: Cloud) -> None:
    """Sizes, command, environment and network are what the engine is given, and are shown."""
    found = await cloud.create(
        image="bastide/debian:12",
        slug="shop-1",
        config={
            "cpus": 0.5,
            "memory_mb": 256,
            "writable_size_mb": 1024,
            "env": ["A=1"],
            "cmd": ["sleep", "9"],
            "restart_policy": "on-failure",
            "max_restarts": 3,
            "network_config": {"allow_internet": False, "public_ingress": True},
        },
    )
    spec = cloud.engine.machines[found["id"]].spec
    assert spec.hostname == "shop-1"
    assert spec.image == "debian-12"
    assert spec.env == {"A": "1"}
    assert spec.cmd == ("sleep", "9")
    assert (spec.resources.cpus, spec.resources.memory_mb, spec.resources.disk_mb) == (
        0.5,
        256,
        1024,
    )
    assert not spec.network.allow_internet
    assert spec.network.public_access
    config = (await cloud.get("shop-1"))["config"]
    assert config["env"] == [{"key": "A", "value": "1"}]
    assert config["cmd"] == ["sleep", "9"]
    assert config["disk_size_mb"] == config["writable_size_mb"] == 1024
    assert config["restart_policy"] == "on-failure"


async def test_equal_names_get_different_slugs(cloud: Cloud) -> None:
    """An automatic slug is varied when taken; a chosen one is refused."""
    first = await cloud.create(name="App One")
    second = await cloud.create(name="App One")
    assert first["slug"] == "app-one"
    assert second["slug"].startswith("app-one-")
    refused = await cloud.call("POST", "/workspace", {"slug": "app-one"}, status=409)
    assert refused["code"] == "conflict"
    assert refused["details"]["field"] == "slug"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"image": "windows-95"}, "image"),
        ({"image": "broken"}, "image"),
        ({"config": {"cpus": 64}}, "config.cpus"),
        ({"config": {"memory_mb": 1}}, "config.memory_mb"),
        ({"config": {"idle": {"suspend_after": 300}}}, "config.idle"),
        ({"config": {"ttl": "soon"}}, "config.ttl"),
        ({"config": {"ttl": "1h"}, "mode": "permanent"}, "config.ttl"),
        ({"config": {"ttl": "1h", "ttl_action": "suspend"}}, "config.ttl_action"),
        ({"config": {"remove_on_exit": True}}, "config.remove_on_exit"),
        ({"mode": "temporary"}, "config.ttl"),
        ({"mode": "eternal"}, "mode"),
        ({"name": "x" * 256}, "name"),
        ({"slug": "No"}, "slug"),
        ({"namespace": "a b"}, "namespace"),
        ({"wait_ready": "yes"}, "wait_ready"),
        ([], "body"),
    ],
)
async def test_wrong_fields_are_named(cloud: Cloud, body: Any, field: str) -> None:
    """A wrong field is a 422 that names it and says what is allowed; nothing is made."""
    refused = await cloud.call("POST", "/workspace", body, status=422)
    assert refused["code"] == "validation_error"
    assert refused["details"]["field"] == field
    assert refused["message"].endswith(".")
    assert (await cloud.call("GET", "/workspace"))["total"] == 0
    assert not cloud.engine.machines


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "x" * 300}, "name must have at most 255 characters, not 300."),
        ({"image": ""}, "image must have at least 1 character, not 0."),
        (
            {"namespace": "A b"},
            "namespace must be 1 to 128 lower-case letters, digits and hyphens, with no hyphen",
        ),
        ({"config": "small"}, "config must be a JSON object."),
        ({"config": {"network_config": 1}}, "config.network_config must be a JSON object."),
        (
            {"config": {"network_config": {"ingress_ports": [1] * 60}}},
            "config.network_config.ingress_ports must have at most 50 items, not 60.",
        ),
        (
            {"config": {"ttl": 0}},
            "config.ttl must be between 1 second and 10 years; allowed is a number of seconds",
        ),
    ],
)
async def test_what_is_allowed_is_said_in_words(cloud: Cloud, body: Any, message: str) -> None:
    """A sentence for the person who wrote the field, not for who wrote the server."""
    refused = await cloud.call("POST", "/workspace", body, status=422)
    assert refused["message"].startswith(message)


async def test_thirty_at_once(cloud: Cloud) -> None:
    """Thirty creations at once all succeed, with addresses of their own."""
    found = await asyncio.gather(*(cloud.create(name="same") for _ in range(30)))
    assert len({each["slug"] for each in found}) == 30
    assert len({machine.status.address for machine in cloud.engine.machines.values()}) == 30
    assert (await cloud.call("GET", "/workspace"))["total"] == 30


async def test_the_same_key_makes_one_workspace(cloud: Cloud) -> None:
    """A repeated idempotency key answers with the first workspace, also when sent at once."""
    body = {"name": "once", "idempotency_key": "k-1"}
    answers = await asyncio.gather(*(cloud.http.post("/workspace", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["workspace"]["id"] for answer in answers}) == 1
    other = await cloud.call("POST", "/workspace", {**body, "name": "twice"}, status=409)
    assert other["code"] == "conflict"
    assert other["details"]["field"] == "idempotency_key"
    assert (await cloud.call("GET", "/workspace"))["total"] == 1


async def test_limits_hold_in_a_race(cloud: Cloud) -> None:
    """Of many creations at once, exactly as many succeed as the account may have."""
    await cloud.limit(max_workspaces=3)
    answers = await asyncio.gather(*(cloud.http.post("/workspace") for _ in range(10)))
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert len(refused) == 7
    for body in refused:
        assert body["code"] == "SANDBOX_LIMIT_REACHED"
        assert (body["current"], body["max"]) == (3, 3)


@pytest.mark.parametrize(
    ("limit", "field", "most"),
    [
        ({"max_cpus": 0.5}, "cpus", 0.5),
        ({"max_memory_mb": 256}, "memory_mb", 256),
        ({"max_disk_mb": 1024}, "disk_size_mb", 1024),
    ],
)
async def test_an_accounts_own_sizes(
    cloud: Cloud, limit: dict[str, float], field: str, most: float
) -> None:
    """More than the account may have is refused; defaults are lowered to it, and quota tells."""
    await cloud.limit(**limit)
    body = {"config": {field: most * 2}}
    refused = await cloud.call("POST", "/workspace", body, status=422)
    assert refused["details"]["field"] == f"config.{field}"
    assert f"and {most:g} for this account" in refused["message"]
    assert (await cloud.create(config={field: most}))["resources"][field] == most
    assert (await cloud.create())["resources"][field] == most
    assert (await cloud.call("GET", "/workspace/quota"))["limits"][field] == most


async def test_the_running_pool_is_limited(cloud: Cloud) -> None:
    """A stopped workspace does not start while as many run as may; stopping another helps."""
    first = await cloud.create()
    await cloud.call("POST", f"/workspace/{first['id']}/stop")
    second = await cloud.create()
    await cloud.limit(max_running=1)
    refused = await cloud.call("POST", f"/workspace/{first['id']}/start", status=402)
    assert refused["code"] == "RUNNING_POOL_REACHED"
    assert (refused["current"], refused["max"]) == (1, 1)
    await cloud.call("POST", f"/workspace/{second['id']}/stop")
    await cloud.call("POST", f"/workspace/{first['id']}/start")


@pytest.mark.parametrize("step", ["create", "start"])
async def test_a_failed_creation_leaves_its_record_only(cloud: Cloud, step: str) -> None:
    """A creation that fails leaves nothing in the engine; it can be retried."""
    cloud.engine.fail[step] = 1
    refused = await cloud.call("POST", "/workspace", {"wait_ready": True}, status=422)
    assert refused["code"] == "CREATE_FAILED"
    found = await cloud.get(refused["details"]["workspace_id"])
    assert found["status"] == "error"
    assert found["info"]["status"] == "stopped"
    assert found["provisioning"]["state"] == "failed"
    assert found["provisioning"]["error"]["code"] == "CREATE_FAILED"
    assert f"the fake fails at {step}" in found["provisioning"]["error"]["message"]
    assert not cloud.engine.machines
    path = f"/workspace/{found['id']}"
    refused = await cloud.call("POST", f"{path}/start", status=409)
    assert "provisioning/retry" in refused["message"]
    await cloud.call("POST", f"{path}/stop")
    await cloud.call("POST", f"{path}/provisioning/retry")
    assert await cloud.until(found["id"], lambda each: each["ready"])
    await cloud.call("POST", f"{path}/provisioning/retry", status=409)


async def test_a_failed_creation_can_be_deleted(cloud: Cloud) -> None:
    """The record of a failed creation goes like any other."""
    cloud.engine.fail["start"] = 1
    refused = await cloud.call("POST", "/workspace", {"wait_ready": True}, status=422)
    workspace_id = refused["details"]["workspace_id"]
    await cloud.call("DELETE", f"/workspace/{workspace_id}")
    await cloud.gone(workspace_id)


async def test_a_creation_survives_an_engine_that_comes_back(cloud: Cloud) -> None:
    """While the engine is away a creation waits, and goes on by itself."""
    await cloud.call("GET", "/workspace/images")
    cloud.engine.down = True
    answer = await cloud.call("POST", "/workspace", status=201)
    waiting = await cloud.until(
        answer["workspace"]["id"], lambda each: "trying again" in each["provisioning"]["message"]
    )
    assert waiting["status"] == "creating"
    cloud.engine.down = False
    await cloud.until(waiting["id"], lambda each: each["ready"])


async def test_an_engine_never_seen_is_unavailable(cloud: Cloud) -> None:
    """Without an engine, and without its images known, a creation is refused as such."""
    cloud.engine.down = True
    refused = await cloud.call("POST", "/workspace", status=503)
    assert refused["code"] == "VM_UNAVAILABLE"


@pytest.mark.parametrize("step", ["create", "start"])
async def test_a_lost_answer_makes_no_second_machine(cloud: Cloud, step: str) -> None:
    """A step that was done and whose answer was lost is repeated without harm."""
    cloud.engine.lose[step] = 1
    found = await cloud.create()
    assert list(cloud.engine.machines) == [found["id"]]
    assert found["provisioning"]["state"] == "ready"
