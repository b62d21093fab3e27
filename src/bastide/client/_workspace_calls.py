"""The calls about workspaces and images (control plane)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bastide.client._call import LONG_TIMEOUT, Call, given, part
from bastide.client._errors import ApiError, BastideError, ConnectionFailed, ProvisioningFailed
from bastide.client._models import (
    Category,
    Image,
    Lifecycle,
    MachineInfo,
    Mode,
    Workspace,
    WorkspacePage,
)


def create(
    *,
    image: str | None,
    image_auth: Mapping[str, str] | None,
    name: str | None,
    slug: str | None,
    namespace: str | None,
    mode: Mode | None,
    cpus: float | None,
    memory_mb: int | None,
    disk_size_mb: int | None,
    env: Mapping[str, str] | None,
    cmd: str | Sequence[str] | None,
    config: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> Call[Workspace]:
    """Create; a key is made when none is given, so that a lost answer can be asked for again."""
    settings: dict[str, Any] = {
        "cpus": cpus,
        "memory_mb": memory_mb,
        "disk_size_mb": disk_size_mb,
        "env": None if env is None else [{"key": key, "value": env[key]} for key in env],
        "cmd": cmd if cmd is None or isinstance(cmd, str) else list(cmd),
        **(config or {}),
    }
    body: dict[str, Any] = {
        "image": image,
        "image_auth": None if image_auth is None else dict(image_auth),
        "name": name,
        "slug": slug,
        "namespace": namespace,
        "mode": mode,
        "config": given(settings) or None,
        "idempotency_key": idempotency_key or uuid.uuid4().hex,
        "wait_ready": False,
    }
    return Call("POST", "/workspace", _workspace, json=given(body))


def waiting(call: Call[Workspace], seconds: float) -> Call[Workspace]:
    """A creation that is answered once the workspace is ready.

    It is not repeated as it is: whose answer is lost asks `call` what became of it.
    """
    body = {**(call.json or {}), "wait_ready": True}
    return replace(call, json=body, repeatable=False, timeout=max(seconds, 1.0))


def unsettled(error: BastideError) -> bool:
    """Whether a creation may have begun although its answer is an error."""
    if isinstance(error, ApiError):
        return error.status >= 500 or error.code == "CREATE_FAILED"
    return isinstance(error, ConnectionFailed)


def get(workspace: str) -> Call[Workspace]:
    """One workspace, by id or slug."""
    return Call("GET", f"/workspace/{part(workspace)}", _workspace)


def list_(
    page: int | None,
    limit: int | None,
    status: str | None,
    mode: Mode | None,
    namespace: str | None,
) -> Call[WorkspacePage]:
    """One page of the workspaces."""
    params = {"page": page, "limit": limit, "status": status, "mode": mode, "namespace": namespace}
    return Call("GET", "/workspace", WorkspacePage.model_validate, params=params)


def update(workspace: str, changes: Mapping[str, Any]) -> Call[Workspace]:
    """Change name, slug, logo or config; what is not named stays."""
    return Call("PUT", f"/workspace/{part(workspace)}", _workspace, json=dict(changes))


def delete(workspace: str) -> Call[None]:
    """Delete for good, from any state."""
    return Call("DELETE", f"/workspace/{part(workspace)}", _nothing, timeout=LONG_TIMEOUT)


def power(workspace: str, verb: str, body: Mapping[str, Any] | None = None) -> Call[None]:
    """Start, stop, restart, pause or resume; a restart is not sent twice."""
    return Call(
        "POST",
        f"/workspace/{part(workspace)}/{verb}",
        _nothing,
        json=body,
        repeatable=verb != "restart",
        timeout=LONG_TIMEOUT,
    )


def lifecycle(workspace: str) -> Call[Lifecycle]:
    """Mode, status, restart policy and uptime."""
    return Call("GET", f"/workspace/{part(workspace)}/lifecycle", Lifecycle.model_validate)


def info(workspace: str) -> Call[MachineInfo]:
    """Tier, state and boot timings of its machine."""
    return Call("GET", f"/workspace/{part(workspace)}/info", MachineInfo.model_validate)


def runtime_enable(workspace: str) -> Call[str]:
    """Enable the runtime server, unless it is; a gateway token."""
    return Call("POST", f"{_runtime(workspace)}/enable", _token)


def images(search: str | None, category: str | None) -> Call[list[Image]]:
    """The catalogue, or what of it fits."""
    return Call(
        "GET",
        "/workspace/images",
        lambda body: [Image.model_validate(image) for image in body["images"]],
        params={"search": search, "category": category},
    )


def categories() -> Call[list[Category]]:
    """What the images of the catalogue are for."""
    return Call(
        "GET",
        "/workspace/images",
        lambda body: [Category.model_validate(one) for one in body["categories"]],
    )


def settled(workspace: Workspace) -> bool:
    """Whether a workspace is ready.

    Raises:
        ProvisioningFailed: it never will be.
    """
    provisioning = workspace.provisioning
    if provisioning is not None and provisioning.state == "failed":
        fault = provisioning.error
        raise ProvisioningFailed(
            fault.code if fault else "CREATE_FAILED",
            (fault.message if fault else None) or provisioning.message or "the creation failed",
            workspace=workspace,
        )
    if provisioning is not None and provisioning.phase == "deleting":
        raise ProvisioningFailed(
            "WORKSPACE_CREATION_CANCELLED", "the workspace is being deleted", workspace=workspace
        )
    if workspace.ready:
        return True
    if provisioning is not None and provisioning.state == "ready":
        raise ProvisioningFailed(
            "WORKSPACE_STOPPED", "the workspace has stopped", workspace=workspace
        )
    return False


def _runtime(workspace: str) -> str:
    return f"/workspace/{part(workspace)}/runtime-api-access"


def _workspace(body: Any) -> Workspace:
    return Workspace.model_validate(body["workspace"])


def _token(body: Any) -> str:
    return str(body["token"])


def _nothing(_: Any) -> None:
    return None
