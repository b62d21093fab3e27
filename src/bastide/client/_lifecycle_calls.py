"""The calls about lifecycle, leases, sizes, quota and prices (control plane)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bastide.client._call import LONG_TIMEOUT, Call, given, part
from bastide.client._models import (
    Estimate,
    Lifecycle,
    Model,
    Quota,
    Resized,
    Resources,
    Snapshot,
    Workspace,
    WorkspacePage,
)


class Renewal(Model):
    """What a ping answers."""

    ttl: str | None = None
    ttl_action: str | None = None
    ttl_expires_at: str | None = None


def snapshot(workspace: str, after: str | None) -> Call[Snapshot]:
    """Capture memory and disk."""
    return Call(
        "POST",
        f"/workspace/{part(workspace)}/snapshot",
        _snapshot,
        json={"after": after} if after else None,
        repeatable=False,
        timeout=LONG_TIMEOUT,
    )


def restore(workspace: str) -> Call[Snapshot]:
    """Go back to the last snapshot."""
    path = f"/workspace/{part(workspace)}/restore"
    return Call("POST", path, _snapshot, repeatable=False, timeout=LONG_TIMEOUT)


def _snapshot(body: Any) -> Snapshot:
    return Snapshot.model_validate(body["snapshot"])


def destroy(workspace: str) -> Call[None]:
    """Remove machine and disk, keep the record."""
    path = f"/workspace/{part(workspace)}/lifecycle"
    return Call("DELETE", path, lambda _: None, timeout=LONG_TIMEOUT)


def reinstall(workspace: str) -> Call[None]:
    """Remove machine and disk, and boot anew from the image."""
    path = f"/workspace/{part(workspace)}/reinstall"
    return Call("POST", path, lambda _: None, repeatable=False, timeout=LONG_TIMEOUT)


def make_permanent(workspace: str, restart_policy: str | None) -> Call[Lifecycle]:
    """End the lease; set the restart policy."""
    return _lifecycle("POST", workspace, "permanent", {"restart_policy": restart_policy})


def make_temporary(
    workspace: str, ttl: str | int, ttl_action: str | None, *, remove_on_exit: bool | None
) -> Call[Lifecycle]:
    """Give it a lease from now on."""
    body = {"ttl": ttl, "ttl_action": ttl_action, "remove_on_exit": remove_on_exit}
    return _lifecycle("POST", workspace, "temporary", body)


def update_ttl(workspace: str, ttl: str | int | None, ttl_action: str | None) -> Call[Lifecycle]:
    """Another length or action of its lease."""
    return _lifecycle("PUT", workspace, "ttl", {"ttl": ttl, "ttl_action": ttl_action})


def ping(workspace: str, ttl_seconds: int | None) -> Call[Renewal]:
    """Renew its lease from now."""
    body = given({"ttl_seconds": ttl_seconds})
    path = f"/workspace/{part(workspace)}/ping"
    return Call("POST", path, Renewal.model_validate, json=body)


def resources(workspace: str) -> Call[Resources]:
    """Its sizes."""
    return Call(
        "GET",
        f"/workspace/{part(workspace)}/resources",
        lambda body: Resources.model_validate(body["resources"]),
    )


def resize(
    workspace: str,
    cpus: float | None,
    memory_mb: int | None,
    disk_size_mb: int | None,
    *,
    apply: bool,
) -> Call[Resized]:
    """Other sizes."""
    body = {"cpus": cpus, "memory_mb": memory_mb, "disk_size_mb": disk_size_mb, "apply": apply}
    return Call(
        "PATCH",
        f"/workspace/{part(workspace)}/resources",
        Resized.model_validate,
        json=given(body),
        timeout=LONG_TIMEOUT,
    )


def archived(page: int | None, limit: int | None) -> Call[WorkspacePage]:
    """One page of those whose machine is gone for good."""
    params = {"page": page, "limit": limit}
    return Call("GET", "/workspace/archived", WorkspacePage.model_validate, params=params)


def details(workspace: str) -> Call[dict[str, Any]]:
    """Everything about one workspace."""
    return Call("GET", f"/workspace/{part(workspace)}/details", dict)


def retry(workspace: str) -> Call[Workspace]:
    """Another try of a creation that failed; answers at once."""
    path = f"/workspace/{part(workspace)}/provisioning/retry"
    return Call("POST", path, lambda body: Workspace.model_validate(body["workspace"]))


def quota() -> Call[Quota]:
    """Limits and use of the account."""
    return Call("GET", "/workspace/quota", Quota.model_validate)


def estimate(
    cpus: float | None, memory_mb: float | None, disk_size_mb: float | None
) -> Call[Estimate]:
    """Credits for these sizes."""
    params = {"cpu": cpus, "ram_mb": memory_mb, "disk_mb": disk_size_mb}
    return Call("GET", "/workspace/estimate", _estimate, params=params)


def _estimate(body: Any) -> Estimate:
    return Estimate.model_validate({**body["estimate"], "period": body["period"]})


def _lifecycle(
    method: str, workspace: str, part_name: str, body: Mapping[str, Any]
) -> Call[Lifecycle]:
    path = f"/workspace/{part(workspace)}/lifecycle/{part_name}"
    return Call(method, path, Lifecycle.model_validate, json=given(body))
