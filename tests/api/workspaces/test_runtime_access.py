"""Runtime API access: tokens, edge and agent agree."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from tests.api.workspaces.cloud import Cloud

from bastide.domain.machine import RUNTIME_PORT


def claims(token: str) -> dict[str, Any]:
    """What a gateway token says."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


@pytest.mark.parametrize("segment", ["runtime-api-access", "internal-api-access"])
async def test_enable_opens_everything(cloud: Cloud, segment: str) -> None:
    """Enable tells firewall, agent and edge, and gives a token; a second time restarts nothing."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/{segment}"
    assert (await cloud.call("GET", path))["enabled"] is False
    assert cloud.edge.entries[found["id"]].state == "disabled"
    assert (await cloud.call("GET", f"{path}/token", status=403))["code"] == "disabled"
    enabled = await cloud.call("POST", f"{path}/enable")
    assert enabled["enabled"] is True
    said = claims(enabled["token"])
    machine = cloud.engine.machines[found["id"]]
    assert (said["ws"], said["gen"], said["kind"]) == (found["id"], 1, "gateway")
    assert (said["ip"], said["port"]) == (machine.status.address, RUNTIME_PORT)
    assert said["exp"] - said["iat"] == 3600
    assert machine.policy.public_access
    assert machine.policy.ingress_ports == (RUNTIME_PORT,)
    entry = cloud.edge.entries[found["id"]]
    assert (entry.state, entry.address, entry.generation) == ("open", machine.status.address, 1)
    assert cloud.agent.runtime[found["id"]] == (True, entry.raw_token)
    status = await cloud.call("GET", path)
    assert (status["enabled"], status["running"]) == (True, True)
    calls = len(cloud.engine.calls)
    again = await cloud.call("POST", f"{path}/enable")
    assert claims(again["token"])["jti"] != said["jti"]
    assert not [call for call in cloud.engine.calls[calls:] if call[0] == "apply_network"]


async def test_an_owners_no_stays(cloud: Cloud) -> None:
    """Public access that was closed on purpose stays closed; the edge then answers 403."""
    found = await cloud.create(config={"network_config": {"public_access": False}})
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/enable")
    assert cloud.edge.entries[found["id"]].state == "closed"
    shown = await cloud.call("GET", f"/workspace/{found['id']}/network")
    assert shown["public_access"] is False
    assert shown["ingress_ports"] == [RUNTIME_PORT]
    changed = await cloud.call(
        "PATCH", f"/workspace/{found['id']}/network", {"public_access": True}
    )
    assert changed["ingress"] == ["host"]
    assert cloud.edge.entries[found["id"]].state == "open"


async def test_rotation_kills_older_tokens(cloud: Cloud) -> None:
    """Rotation raises the generation and changes the raw token everywhere."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/runtime-api-access"
    await cloud.call("POST", f"{path}/enable")
    raw = await cloud.call("GET", f"{path}/token/raw")
    assert raw["ip"] == cloud.engine.machines[found["id"]].status.address
    assert raw["port"] == RUNTIME_PORT
    assert len(bytes.fromhex(raw["token"])) == 32
    rotated = await cloud.call("POST", f"{path}/token")
    assert claims(rotated["token"])["gen"] == 2
    entry = cloud.edge.entries[found["id"]]
    assert entry.generation == 2
    assert entry.raw_token != raw["token"]
    assert cloud.agent.runtime[found["id"]] == (True, entry.raw_token)
    assert (await cloud.call("GET", f"{path}/token/raw"))["token"] == entry.raw_token


async def test_the_workspace_token_opens_its_own_workspace(cloud: Cloud) -> None:
    """The 30-day token is also a credential of the control plane, until it is rotated away."""
    found, other = await cloud.create(), await cloud.create()
    path = f"/workspace/{found['id']}/runtime-api-access"
    await cloud.call("POST", f"{path}/enable")
    token = (await cloud.call("POST", f"{path}/workspace"))["token"]
    assert claims(token)["kind"] == "workspace"
    assert claims(token)["exp"] - claims(token)["iat"] == 30 * 86400
    bearer = {"Authorization": f"Bearer {token}", "X-Client-ID": "", "X-Client-Secret": ""}
    await cloud.call("GET", f"/workspace/{found['id']}", headers=bearer)
    await cloud.call("GET", f"/workspace/{other['id']}", headers=bearer, status=403)
    await cloud.call("POST", f"{path}/token")
    await cloud.call("GET", f"/workspace/{found['id']}", headers=bearer, status=401)


async def test_disable_closes_and_enable_opens_again(cloud: Cloud) -> None:
    """Disabled, the edge refuses and the agent's server is closed; the raw token is kept."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/runtime-api-access"
    await cloud.call("POST", f"{path}/enable")
    raw = await cloud.call("GET", f"{path}/token/raw")
    for _ in range(2):
        disabled = await cloud.call("POST", f"{path}/disable")
        assert (disabled["enabled"], disabled["running"]) == (False, False)
    assert cloud.edge.entries[found["id"]].state == "disabled"
    assert cloud.agent.runtime[found["id"]] == (False, None)
    for method, tail in (("GET", "token"), ("POST", "token"), ("GET", "token/raw")):
        assert (await cloud.call(method, f"{path}/{tail}", status=403))["code"] == "disabled"
    await cloud.call("POST", f"{path}/enable")
    assert await cloud.call("GET", f"{path}/token/raw") == raw


async def test_access_survives_stop_and_start(cloud: Cloud) -> None:
    """While stopped the edge says down; a start boots with access as stored and opens it again."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/runtime-api-access/enable")
    raw = cloud.edge.entries[found["id"]].raw_token
    await cloud.call("POST", f"{path}/stop")
    assert cloud.edge.entries[found["id"]].state == "down"
    assert not (await cloud.call("GET", f"{path}/runtime-api-access"))["running"]
    await cloud.call("POST", f"{path}/start")
    assert cloud.edge.entries[found["id"]].state == "open"
    runtime = cloud.engine.machines[found["id"]].spec.runtime
    assert (runtime.enabled, runtime.token) == (True, raw)


async def test_enabling_a_stopped_one_counts_from_its_start(cloud: Cloud) -> None:
    """What was enabled while stopped is in force after the start."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/stop")
    assert (await cloud.call("POST", f"{path}/runtime-api-access/enable"))["token"]
    assert cloud.edge.entries[found["id"]].state == "down"
    await cloud.call("POST", f"{path}/start")
    assert cloud.engine.machines[found["id"]].spec.runtime.enabled
    assert cloud.edge.entries[found["id"]].state == "open"


async def test_the_raw_token_needs_an_address(cloud: Cloud) -> None:
    """Before the first boot there is no address: 404."""
    cloud.engine.fail["start"] = 1
    refused = await cloud.call("POST", "/workspace", {"wait_ready": True}, status=422)
    path = f"/workspace/{refused['details']['workspace_id']}/runtime-api-access"
    await cloud.call("POST", f"{path}/enable")
    await cloud.call("GET", f"{path}/token/raw", status=404)


async def test_a_silent_agent_is_told_later(cloud: Cloud) -> None:
    """When the agent cannot be told, the change is stored and reconnect puts it in force."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/runtime-api-access"
    cloud.agent.down = True
    refused = await cloud.call("POST", f"{path}/enable", status=503)
    assert refused["code"] == "VM_UNAVAILABLE"
    cloud.agent.down = False
    status = await cloud.call("POST", f"{path}/reconnect")
    assert (status["enabled"], status["running"]) == (True, True)
    assert cloud.agent.runtime[found["id"]][0]


async def test_a_full_port_list_is_told(cloud: Cloud) -> None:
    """With fifty ports open there is no place for 9990: 409, and nothing changes."""
    found = await cloud.create(config={"network_config": {"ingress_ports": list(range(1, 51))}})
    refused = await cloud.call(
        "POST", f"/workspace/{found['id']}/runtime-api-access/enable", status=409
    )
    assert refused["details"]["field"] == "ingress_ports"
    assert not (await cloud.call("GET", f"/workspace/{found['id']}/runtime-api-access"))["enabled"]
