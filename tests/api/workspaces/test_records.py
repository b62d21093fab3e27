"""List, get, update, network, images, and how far credentials reach."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.workspaces.cloud import Cloud

from bastide.store.workspaces import Workspaces


async def test_lists_are_paged_and_filtered(cloud: Cloud) -> None:
    """Newest first, by page, status, mode and namespace."""
    made = [
        await cloud.create(name=f"n{number}", namespace="team" if number % 2 else None)
        for number in range(5)
    ]
    await cloud.call("POST", f"/workspace/{made[0]['id']}/stop")
    page = await cloud.call("GET", "/workspace?page=2&limit=2")
    assert (page["total"], page["page"], page["limit"]) == (5, 2, 2)
    assert [each["name"] for each in page["workspaces"]] == ["n2", "n1"]
    stopped = await cloud.call("GET", "/workspace?status=stopped")
    assert [each["name"] for each in stopped["workspaces"]] == ["n0"]
    assert stopped["total"] == 1
    assert (await cloud.call("GET", "/workspace?status=running&limit=1"))["total"] == 4
    assert (await cloud.call("GET", "/workspace?namespace=team"))["total"] == 2
    assert (await cloud.call("GET", "/workspace?mode=temporary"))["total"] == 0
    assert (await cloud.call("GET", "/workspace?page=9"))["workspaces"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [("page=0", "page"), ("limit=1000", "limit"), ("status=odd", "status"), ("mode=x", "mode")],
)
async def test_wrong_queries_are_named(cloud: Cloud, query: str, field: str) -> None:
    """A wrong query value is a 422 that names it."""
    refused = await cloud.call("GET", f"/workspace?{query}", status=422)
    assert refused["details"]["field"] == field


async def test_update_changes_what_is_given(cloud: Cloud) -> None:
    """Name, slug, logo and config; null clears; the rest stays."""
    found = await cloud.create(name="before", config={"env": {"A": "1"}, "cmd": "sleep 1"})
    path = f"/workspace/{found['id']}"
    answer = await cloud.call(
        "PUT",
        path,
        {
            "name": "after",
            "slug": "after-1",
            "logo": "https://example.org/l.png",
            "config": {"memory_mb": 1024, "env": {"B": "2"}},
        },
    )
    changed = answer["workspace"]
    assert (changed["name"], changed["slug"]) == ("after", "after-1")
    assert changed["logo"] == "https://example.org/l.png"
    assert changed["config"]["env"] == [{"key": "B", "value": "2"}]
    assert changed["config"]["cmd"] == ["/bin/sh", "-c", "sleep 1"]
    assert changed["resources"]["memory_mb"] == 1024
    assert (await cloud.get("after-1"))["id"] == found["id"]
    await cloud.call("POST", f"{path}/restart")
    assert cloud.engine.machines[found["id"]].spec.resources.memory_mb == 1024
    cleared = (await cloud.call("PUT", path, {"slug": None, "logo": None}))["workspace"]
    assert (cleared["slug"], cleared["logo"]) == (None, None)
    assert cleared["name"] == "after"


@pytest.mark.parametrize(
    ("body", "field", "instead"),
    [
        ({"mode": "temporary"}, "mode", "/lifecycle/temporary"),
        ({"image": "python-3.11"}, "image", "Create a new one"),
        ({"namespace": "elsewhere"}, "namespace", "Create a new one"),
        ({"image_auth": {"username": "me", "password": "x"}}, "image_auth", "is created"),
        ({"preset": "large"}, "preset", "not available"),
    ],
)
async def test_an_update_drops_nothing_in_silence(
    cloud: Cloud, body: dict[str, Any], field: str, instead: str
) -> None:
    """What it cannot change is named with what can, and changes nothing."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    refused = await cloud.call("PUT", path, {**body, "name": "new"}, status=422)
    assert refused["details"]["field"] == field
    assert instead in refused["message"]
    assert (await cloud.get(found["id"])) == found


async def test_a_workspace_can_be_sent_back_as_it_is_shown(cloud: Cloud) -> None:
    """Whoever changes one field of the whole object is heard."""
    found = await cloud.create()
    shown = await cloud.get(found["id"])
    path = f"/workspace/{found['id']}"
    changed = {key: shown[key] for key in ("slug", "mode", "image", "namespace", "logo")}
    updated = await cloud.call("PUT", path, {**changed, "name": "new"})
    assert (updated["workspace"]["name"], updated["workspace"]["mode"]) == ("new", shown["mode"])


async def test_update_refuses_what_cannot_be(cloud: Cloud) -> None:
    """A taken slug, a smaller disk, bad bounds, what belongs to the lifecycle."""
    first, second = await cloud.create(name="one"), await cloud.create(name="two")
    path = f"/workspace/{second['id']}"
    await cloud.call("PUT", path, {"slug": first["slug"]}, status=409)
    refused = await cloud.call("PUT", path, {"config": {"disk_size_mb": 64}}, status=422)
    assert refused["details"]["field"] == "config.disk_size_mb"
    refused = await cloud.call("PUT", path, {"config": {"ttl": "1h"}}, status=422)
    assert refused["details"]["field"] == "config.ttl"
    refused = await cloud.call("PUT", path, {"config": {"cpus": 999}}, status=422)
    assert refused["details"]["field"] == "config.cpus"
    assert (await cloud.get(second["id"]))["slug"] == "two"


async def test_network_is_changed_hot(cloud: Cloud) -> None:
    """A change reaches the machine at once; the list of ports is replaced; the rest is refused."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/network"
    shown = await cloud.call("GET", path)
    assert shown["ip"] == cloud.engine.machines[found["id"]].status.address
    assert shown["gateway"] == "10.201.0.1"
    assert (shown["public_access"], shown["allow_internet"]) == (False, True)
    assert (shown["ingress"], shown["ingress_ports"], shown["egress"]) == ([], [], [])
    changed = await cloud.call(
        "PATCH", path, {"ingress_ports": [80, 22, 80], "allow_internet": False}
    )
    assert changed["ingress_ports"] == [22, 80]
    policy = cloud.engine.machines[found["id"]].policy
    assert policy.ingress_ports == (22, 80)
    assert not policy.allow_internet
    changed = await cloud.call("PATCH", path, {"ingress_ports": [3000]})
    assert changed["ingress_ports"] == [3000]
    assert changed["allow_internet"] is False
    for body, field in (
        ({"ingress_ports": [0]}, "ingress_ports.0"),
        ({"outbound_mode": "custom"}, "outbound_mode"),
    ):
        refused = await cloud.call("PATCH", path, body, status=422)
        assert refused["details"]["field"] == field


async def test_a_network_change_is_put_in_force_later(cloud: Cloud) -> None:
    """While the engine is away a change is stored and told as such; reconnect brings it."""
    found = await cloud.create()
    cloud.engine.down = True
    refused = await cloud.call(
        "PATCH", f"/workspace/{found['id']}/network", {"allow_internet": False}, status=503
    )
    assert refused["code"] == "VM_UNAVAILABLE"
    cloud.engine.down = False
    assert cloud.engine.machines[found["id"]].policy.allow_internet
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/reconnect")
    assert not cloud.engine.machines[found["id"]].policy.allow_internet


async def test_images_are_found(cloud: Cloud) -> None:
    """Search looks into contents; category filters."""
    found = await cloud.call("GET", "/workspace/images?search=python")
    assert [image["id"] for image in found["images"]] == ["debian-12"]
    image = found["images"][0]
    assert image["image"] == "bastide/debian:12"
    assert image["minimum_resources"] == {"cpus": 0.25, "memory_mb": 128, "disk_size_mb": 64}
    assert {"id": "os", "label": "Operating systems"} in found["categories"]
    assert (await cloud.call("GET", "/workspace/images?category=database"))["images"] == []
    await cloud.call("GET", "/workspace/images?category=odd", status=422)


async def test_a_namespace_token_stays_in_its_namespace(cloud: Cloud) -> None:
    """It sees, makes and runs what is in its namespace, and nothing else of the account."""
    outside = await cloud.create(name="outside")
    issued = await cloud.call(
        "POST", "/tokens", {"scope": "namespace", "namespace": "team"}, status=201
    )
    bearer = {
        "Authorization": f"Bearer {issued['token']}",
        "X-Client-ID": "",
        "X-Client-Secret": "",
    }
    body = {"namespace": "other", "wait_ready": True}
    made = await cloud.call("POST", "/workspace", body, headers=bearer, status=201)
    assert made["workspace"]["namespace"] == "team"
    own = f"/workspace/{made['workspace']['id']}"
    await cloud.call("POST", f"{own}/runtime-api-access/enable", headers=bearer)
    await cloud.call("POST", f"{own}/stop", headers=bearer)
    assert (await cloud.call("GET", "/workspace", headers=bearer))["total"] == 1
    foreign = f"/workspace/{outside['id']}"
    for method, path, more in (
        ("GET", foreign, None),
        ("PUT", foreign, {"name": "mine"}),
        ("DELETE", foreign, None),
        ("POST", f"{foreign}/stop", None),
        ("POST", f"{foreign}/start", None),
        ("POST", f"{foreign}/restart", None),
        ("POST", f"{foreign}/provisioning/retry", None),
        ("GET", f"{foreign}/lifecycle", None),
        ("GET", f"{foreign}/info", None),
        ("GET", f"{foreign}/network", None),
        ("PATCH", f"{foreign}/network", {"public_access": True}),
        ("GET", f"{foreign}/runtime-api-access", None),
        ("POST", f"{foreign}/runtime-api-access/enable", None),
        ("POST", f"{foreign}/runtime-api-access/disable", None),
        ("GET", f"{foreign}/runtime-api-access/token/raw", None),
        ("POST", f"{foreign}/runtime-api-access/workspace", None),
    ):
        await cloud.call(method, path, more, headers=bearer, status=403)
    await cloud.call("GET", "/workspace?namespace=other", headers=bearer, status=403)


async def test_another_accounts_workspace_does_not_exist(cloud: Cloud) -> None:
    """An unknown id, and one of another account, are the same 404 everywhere."""
    other = await cloud.services.accounts.create("other")
    found = await cloud.create()
    async with cloud.services.database.write() as session:
        await Workspaces(session).update(found["id"], {"account_id": other.id})
    for reference in (found["id"], "ws_00000000", "no-such-slug"):
        path = f"/workspace/{reference}"
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("GET", "/network")):
            refused = await cloud.call(method, path + tail, status=404)
            assert refused["code"] == "not_found"
