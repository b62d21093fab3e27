"""What runs a workspace: chosen by admins, refused where it cannot be, told in its info."""

from __future__ import annotations

from tests.api.workspaces.cloud import Cloud

from bastide.domain.machine import Driver, TierInfo

MICROVM = TierInfo(
    tier="microvm",
    ready=True,
    reason="the processor does not",
    runtime="qemu 7.2",
    kernel="6.1.0-1-cloud-amd64",
    accelerator="tcg",
    snapshot=True,
)


async def test_a_driver_is_asked_for_and_told(cloud: Cloud) -> None:
    """It reaches the machine, counts from the next start, and its own tier is told of."""
    cloud.engine.tiers = (MICROVM,)
    found = await cloud.create(config={"driver": "microvm"})
    machine = cloud.engine.machines[found["id"]]
    assert machine.spec.driver is Driver.MICROVM
    info = await cloud.call("GET", f"/workspace/{found['id']}/info")
    assert info["driver"] == "microvm"
    lifecycle = await cloud.lifecycle(found["id"])
    assert lifecycle["snapshot_supported"], "the tier's own word counts, not the other's"
    changed = {"config": {"driver": "auto"}}
    await cloud.call("PUT", f"/workspace/{found['id']}", changed)
    await cloud.call("POST", f"/workspace/{found['id']}/restart")
    assert cloud.engine.machines[found["id"]].spec.driver is Driver.AUTO
    assert not (await cloud.lifecycle(found["id"]))["snapshot_supported"]


async def test_a_driver_that_cannot_be_is_refused(cloud: Cloud) -> None:
    """With the field and the reason; nothing is made."""
    cloud.engine.tiers = (MICROVM.model_copy(update={"ready": False, "reason": "no kernel"}),)
    refused = await cloud.call("POST", "/workspace", {"config": {"driver": "microvm"}}, status=422)
    assert refused["details"]["field"] == "config.driver"
    assert "no kernel" in refused["message"]
    odd = await cloud.call("POST", "/workspace", {"config": {"driver": "vm"}}, status=422)
    assert odd["details"]["field"] == "config.driver"
    assert cloud.engine.machines == {}


async def test_only_admins_choose(cloud: Cloud) -> None:
    """A namespace credential is refused, at creation and later, and may leave it out."""
    cloud.engine.tiers = (MICROVM,)
    asked = {"scope": "namespace", "namespace": "team"}
    token = (await cloud.call("POST", "/tokens", asked, status=201))["token"]
    bearer = {"Authorization": f"Bearer {token}", "X-Client-ID": "", "X-Client-Secret": ""}
    wanted = {"config": {"driver": "microvm"}}
    await cloud.call("POST", "/workspace", wanted, headers=bearer, status=403)
    made = await cloud.call("POST", "/workspace", {}, headers=bearer, status=201)
    path = f"/workspace/{made['workspace']['id']}"
    await cloud.call("PUT", path, wanted, headers=bearer, status=403)
