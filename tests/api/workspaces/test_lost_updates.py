"""Changes of one workspace at the same time: none writes back what it read before another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.api.workspaces.cloud import Cloud

from bastide.store.workspaces import Workspaces


def intrude(
    monkeypatch: pytest.MonkeyPatch, workspace_id: str, column: str, **changes: Any
) -> list[bool]:
    """Change a JSON column of the row between the next reading and writing of that column.

    What the writes that followed came to is in the list.
    """
    update = Workspaces.update
    outcomes: list[bool] = []

    async def late(
        self: Workspaces,
        target: str,
        values: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> bool:
        if target != workspace_id or column not in values:
            return await update(self, target, values, expected=expected)
        if not outcomes:
            row = await self.get(target)
            assert row is not None
            await update(self, target, {column: {**getattr(row, column), **changes}})
        outcomes.append(await update(self, target, values, expected=expected))
        return outcomes[-1]

    monkeypatch.setattr(Workspaces, "update", late)
    return outcomes


async def test_enabling_undoes_no_refusal(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner's `public_access: false` that comes while access is being enabled stays."""
    found = await cloud.create()
    outcomes = intrude(
        monkeypatch, found["id"], "network", public_access=False, public_access_set=False
    )
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/enable")
    assert outcomes[:2] == [False, True]
    assert (await cloud.call("GET", f"/workspace/{found['id']}/network"))["public_access"] is False
    assert cloud.edge.entries[found["id"]].state == "closed"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "", {"config": {"network_config": {"egress_ports": [443]}}}),
        ("PATCH", "/network", {"egress_ports": [443]}),
        ("POST", "/network/ip", {"ip": None}),
        ("POST", "/runtime-api-access/disable", None),
    ],
)
async def test_a_network_change_keeps_the_others(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any
) -> None:
    """Whatever writes the network writes what it did not mean to change as it is by then."""
    found = await cloud.create()
    outcomes = intrude(monkeypatch, found["id"], "network", allow_internet=False)
    await cloud.call(method, f"/workspace/{found['id']}{path}", body)
    assert outcomes[:2] == [False, True]
    assert (await cloud.call("GET", f"/workspace/{found['id']}/network"))["allow_internet"] is False


async def test_a_followed_link_keeps_the_others(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the deletion of a linked workspace, in the rows of those it was linked to."""
    caller, found = await cloud.create(), await cloud.create()
    path = f"/workspace/{found['id']}/network"
    await cloud.call("PATCH", path, {"private_link_ids": [caller["id"]]})
    outcomes = intrude(monkeypatch, found["id"], "network", allow_internet=False)
    await cloud.call("DELETE", f"/workspace/{caller['id']}")
    await cloud.gone(caller["id"])
    assert outcomes[:2] == [False, True]
    shown = await cloud.call("GET", path)
    assert (shown["allow_internet"], shown["private_link_ids"]) == (False, [])


async def test_a_lease_change_keeps_the_configuration(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else is configured meanwhile is not lost when the mode changes."""
    found = await cloud.create()
    outcomes = intrude(monkeypatch, found["id"], "config", keep_logs=True)
    await cloud.call("POST", f"/workspace/{found['id']}/lifecycle/permanent", {})
    assert outcomes[:2] == [False, True]
    assert (await cloud.get(found["id"]))["config"]["keep_logs"] is True


async def test_what_is_being_deleted_takes_no_address(cloud: Cloud) -> None:
    """The outbound address of a workspace on its way out cannot be changed."""
    found = await cloud.create()
    async with cloud.services.database.write() as session:
        await Workspaces(session).update(found["id"], {"desired_state": "deleted"})
    path = f"/workspace/{found['id']}/network/ip"
    answer = await cloud.call("POST", path, {"ip": None}, status=409)
    assert answer["details"]["state"] == "deleting"
