"""The policy of a workspace, its callers, and its outbound address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.instant import now
from bastide.domain.network import Blocked, BlockedLog
from bastide.engine.contract import EngineError
from bastide.services.links import Links
from bastide.settings import Network, Settings
from bastide.store.accounts import Accounts
from bastide.store.tables import Account
from bastide.store.workspaces import Filter, Workspaces

POOL = ("203.0.113.21", "203.0.113.22")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A server with two outbound addresses."""
    network = Network(outbound_pool=tuple(map(IPv4Address, POOL)))
    return World(Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run", network=network))


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[Cloud]:
    """A running control plane."""
    async with world.cloud() as running:
        yield running


def path(workspace: dict[str, Any]) -> str:
    return f"/workspace/{workspace['id']}/network"


async def test_every_field_is_stored_shown_and_told(cloud: Cloud) -> None:
    """A policy with all fields reaches the firewall, and only what is given changes."""
    target, caller = await cloud.create(name="target"), await cloud.create(name="caller")
    body = {
        "public_access": True,
        "ingress": ["203.0.113.7", "198.51.100.0/24", "203.0.113.7"],
        "ingress_ports": [8080, 80],
        "egress": ["API.Example.com.", "*.example.org", "192.0.2.0/24"],
        "egress_ports": [443, 53],
        "private_link_ids": [caller["slug"]],
        "outbound_mode": "managed",
        "bandwidth_mbps": 50,
    }
    shown = await cloud.call("PATCH", path(target), body)
    address = cloud.engine.machines[caller["id"]].status.address
    assert shown["ingress"] == ["host", "203.0.113.7", "198.51.100.0/24", address]
    assert shown["egress"] == ["api.example.com", "*.example.org", "192.0.2.0/24"]
    assert shown["egress_ports"] == [53, 443]
    assert shown["private_links"] == [
        {"id": caller["id"], "workspace_id": caller["id"], "name": "caller", "ip": address}
    ]
    assert shown["in_force"] is True
    policy = cloud.engine.machines[target["id"]].policy
    assert policy.ingress == ("203.0.113.7", "198.51.100.0/24")
    assert policy.egress == ("api.example.com", "*.example.org", "192.0.2.0/24")
    assert (policy.links, policy.egress_ports) == ((address,), (53, 443))
    assert policy.bandwidth_mbps == 50
    again = await cloud.call("PATCH", path(target), {"ingress": shown["ingress"]})
    assert again == {**shown, **{key: again[key] for key in again if key.startswith("request")}}
    alone = await cloud.call("PATCH", path(target), {"egress_ports": []})
    assert (alone["egress_ports"], alone["egress"]) == ([], shown["egress"])
    config = (await cloud.get(target["id"]))["config"]["network_config"]
    assert config["egress"] == shown["egress"]


async def test_no_internet_clears_egress(cloud: Cloud) -> None:
    """`allow_internet: false` clears the list, which can then be written for later."""
    found = await cloud.create(config={"network_config": {"egress": ["example.com"]}})
    assert cloud.engine.machines[found["id"]].policy.egress == ("example.com",)
    shown = await cloud.call("PATCH", path(found), {"allow_internet": False})
    assert shown["egress"] == []
    both = {"allow_internet": False, "egress": ["example.com"]}
    refused = await cloud.call("PATCH", path(found), both, status=422)
    assert refused["details"]["field"] == "egress"


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        ({"egress": ["not a name"]}, "egress.0", "xn--"),
        ({"egress": ["2001:db8::1"]}, "egress.0", "IPv6"),
        ({"egress": ["10.0.0.1/8"]}, "egress.0", "10.0.0.0/8"),
        ({"egress": ["example.com:443"]}, "egress.0", "example.com"),
        ({"egress": ["*.*.example.com"]}, "egress.0", "example.com"),
        ({"egress": ["münchen.example"]}, "egress.0", "xn--"),
        ({"egress": ["example.com"] * 51}, "egress", "50"),
        ({"egress": "example.com"}, "egress", "list"),
        ({"egress_ports": [0]}, "egress_ports.0", "1"),
        ({"ingress": ["example.com"]}, "ingress.0", "IPv4"),
        ({"ingress": ["host"]}, "ingress", "public_access"),
        ({"ingress_ports": [9989]}, "ingress_ports.0", "9989"),
        ({"ingress_ports": [True]}, "ingress_ports.0", "number"),
        ({"private_link_ids": [7]}, "private_link_ids.0", "string"),
        ({"outbound_mode": "custom"}, "outbound_mode", "managed"),
        ({"custom_proxy": {"host": "203.0.113.1"}}, "custom_proxy", "not supported"),
        ({"bandwidth_mbps": 0}, "bandwidth_mbps", "0.1"),
    ],
)
async def test_a_wrong_field_is_named_and_changes_nothing(
    cloud: Cloud, body: dict[str, Any], field: str, word: str
) -> None:
    """The answer names the entry and says what is allowed; row and firewall stay."""
    found = await cloud.create()
    before = await cloud.call("GET", path(found))
    policy = cloud.engine.machines[found["id"]].policy
    refused = await cloud.call("PATCH", path(found), {"ingress_ports": [80], **body}, status=422)
    assert refused["details"]["field"] == field
    assert word in refused["message"]
    assert await cloud.call("GET", path(found)) == before
    assert cloud.engine.machines[found["id"]].policy == policy


async def test_what_the_firewall_refuses_is_taken_back(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy the engine calls wrong leaves nothing behind, and the old one is said to stay."""
    found = await cloud.create()

    async def refuse(*_: object) -> None:
        raise EngineError("validation_error", "egress: it cannot be")

    monkeypatch.setattr(cloud.engine, "apply_network", refuse)
    refused = await cloud.call("PATCH", path(found), {"egress": ["192.0.2.1"]}, status=422)
    assert "it cannot be" in refused["message"]
    shown = await cloud.call("GET", path(found))
    assert (shown["egress"], shown["in_force"]) == ([], True)


async def test_a_link_needs_a_workspace_that_is_reached(cloud: Cloud) -> None:
    """Unknown, deleted, foreign and own ids are refused by name, at creation as well."""
    target, gone = await cloud.create(), await cloud.create()
    await cloud.call("DELETE", f"/workspace/{gone['id']}")
    await cloud.gone(gone["id"])
    foreign = await cloud.create()
    async with cloud.services.database.write() as session:
        other = Account(name="other")
        session.add(other)
        await session.flush()
        await Workspaces(session).update(foreign["id"], {"account_id": other.id})
        assert await Accounts(session).get(other.id) is not None
    for wrong in ("ws_ffffffff", gone["id"], foreign["id"], "../etc", "%"):
        refused = await cloud.call("PATCH", path(target), {"private_link_ids": [wrong]}, status=404)
        assert refused["details"]["field"] == "private_link_ids"
        config = {"network_config": {"private_link_ids": [wrong]}}
        await cloud.call("POST", "/workspace", {"config": config}, status=404)
    await cloud.call("PATCH", path(target), {"private_link_ids": [target["id"]]}, status=422)
    assert (await cloud.call("GET", path(target)))["private_links"] == []


async def test_links_follow_their_callers_and_go_with_them(cloud: Cloud) -> None:
    """A new address reaches the target's firewall; a deleted caller leaves it before it is gone."""
    caller = await cloud.create()
    target = await cloud.create(
        config={"network_config": {"private_link_ids": [caller["id"]], "ingress_ports": [80]}}
    )
    machine = cloud.engine.machines[target["id"]]

    def links() -> tuple[str, ...]:
        return machine.policy.links

    held = cloud.engine.machines[caller["id"]].status.address
    assert links() == (held,)
    moved = cloud.engine.machines[caller["id"]]
    moved.status = moved.status.model_copy(update={"address": "10.201.77.7"})
    await eventually(lambda: links() == ("10.201.77.7",))
    await cloud.call("DELETE", f"/workspace/{caller['id']}")
    await cloud.gone(caller["id"])
    assert links() == ()
    assert (await cloud.call("GET", path(target)))["private_links"] == []
    told = [call for call in cloud.engine.calls if call[1] in {caller["id"], target["id"]}]
    assert told.index(("delete", caller["id"])) > max(
        number for number, call in enumerate(told) if call == ("apply_network", target["id"])
    )


async def test_callers_of_other_namespaces_are_counted_and_not_named(cloud: Cloud) -> None:
    """A narrower credential sees how many there are, and cannot name, keep out or drop them."""
    target, own = [await cloud.create(namespace="mine") for _ in range(2)]
    foreign = await cloud.create(namespace="theirs", name="their-secret")
    await cloud.call("PATCH", path(target), {"private_link_ids": [foreign["id"], own["id"]]})
    address = str(cloud.engine.machines[foreign["id"]].status.address)
    assert (await cloud.call("GET", path(target)))["hidden_links"] == 0
    asked = {"scope": "namespace", "namespace": "mine"}
    token = (await cloud.call("POST", "/tokens", asked, status=201))["token"]

    async def narrow(method: str, place: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}", "X-Client-ID": "", "X-Client-Secret": ""}
        answer = await cloud.http.request(method, place, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        for secret in (foreign["id"], "their-secret", address):
            assert secret not in answer.text
        found: dict[str, Any] = answer.json()
        return found

    shown = await narrow("GET", path(target))
    assert (shown["private_link_ids"], shown["hidden_links"]) == ([own["id"]], 1)
    for place in ("/workspace", f"/workspace/{target['id']}", f"/workspace/{target['id']}/details"):
        await narrow("GET", place)
    shown = await narrow("PATCH", path(target), {"private_link_ids": []})
    assert (shown["private_link_ids"], shown["hidden_links"]) == ([], 1)
    assert cloud.engine.machines[target["id"]].policy.links == (address,)
    shown = await cloud.call("PATCH", path(target), {"private_link_ids": []})
    assert (shown["private_link_ids"], shown["hidden_links"]) == ([], 0)


async def test_following_writes_nothing_when_nothing_moved(cloud: Cloud) -> None:
    """A look at links that are right changes no row and tells no firewall."""
    caller = await cloud.create()
    await cloud.create(config={"network_config": {"private_link_ids": [caller["id"]]}})
    database = cloud.services.database
    async with database.read() as session:
        rows = await Workspaces(session).page(Filter())
    assert await Links(database, cloud.services.workspaces._reach).follow(rows) == 0


async def test_outbound_addresses_belong_to_one_account(cloud: Cloud) -> None:
    """An address of the pool is taken, shown, told, and given back; no other account gets it."""
    found = await cloud.create()
    listed = await cloud.call("GET", "/zone/mine")
    assert [proxy["ip"] for proxy in listed["proxies"]] == list(POOL)
    shown = await cloud.call("POST", f"{path(found)}/ip", {"ip": POOL[0]})
    assert shown["outbound_ip"] == POOL[0]
    assert cloud.engine.machines[found["id"]].policy.outbound_ip == POOL[0]
    await cloud.call("POST", f"{path(found)}/ip", {"ip": "192.0.2.9"}, status=422)
    await cloud.call("POST", f"{path(found)}/ip", {}, status=422)
    async with cloud.services.database.write() as session:
        other = Account(name="other")
        session.add(other)
        await session.flush()
        await Workspaces(session).update(found["id"], {"account_id": other.id})
    mine = await cloud.create()
    await cloud.call("POST", f"{path(mine)}/ip", {"ip": POOL[0]}, status=409)
    listed = await cloud.call("GET", "/zone/mine")
    assert [proxy["ip"] for proxy in listed["proxies"]] == [POOL[1]]
    assert (await cloud.call("POST", f"{path(mine)}/ip", {"ip": POOL[1]}))["outbound_ip"] == POOL[1]
    assert (await cloud.call("POST", f"{path(mine)}/ip", {"ip": None}))["outbound_ip"] is None


async def test_what_was_refused_is_shown(cloud: Cloud) -> None:
    """The log of the engine, newest first; empty without a machine."""
    found = await cloud.create()
    assert (await cloud.call("GET", f"{path(found)}/blocked"))["blocked"] == []
    entry = Blocked(
        first=now(), last=now(), protocol="tcp", destination="192.0.2.1", port=443,
        name="example.com", reason="allow_internet is false", count=3,
    )  # fmt: skip
    cloud.engine.refused[found["id"]] = BlockedLog(blocked=(entry,), packets=9)
    shown = await cloud.call("GET", f"{path(found)}/blocked")
    assert shown["packets"] == 9
    (seen,) = shown["blocked"]
    assert (seen["protocol"], seen["destination"], seen["port"]) == ("tcp", "192.0.2.1", 443)
    assert (seen["name"], seen["count"]) == ("example.com", 3)
    await cloud.call("GET", "/workspace/ws_ffffffff/network/blocked", status=404)
