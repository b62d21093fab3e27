"""Workspaces as they are on the wire (spec 3.1, 3.2, 4.3, 4.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bastide.domain.instant import iso, now
from bastide.domain.machine import Driver, Snapshot
from bastide.domain.network import BlockedLog
from bastide.domain.operation import UNFINISHED, OperationKind, OperationState
from bastide.domain.workspace import Status
from bastide.services.details import Details
from bastide.services.failures import failure_of_operation
from bastide.services.lifecycle import LifecycleView, MachineView
from bastide.services.links import Callers
from bastide.services.quota import Quota, Use
from bastide.services.reach import PENDING
from bastide.services.views import WorkspaceView
from bastide.store.tables import Operation, Workspace

_STATES = {
    OperationState.QUEUED: "queued",
    OperationState.RUNNING: "running",
    OperationState.DONE: "ready",
    OperationState.FAILED: "failed",
}


def workspace(view: WorkspaceView) -> dict[str, Any]:
    """The workspace object."""
    row, condition = view.row, view.condition
    ready = row.ready and condition.status is Status.RUNNING
    status = condition.status.value
    return {
        "id": row.id,
        "name": row.name,
        "slug": row.slug,
        "logo": row.logo,
        "namespace": row.namespace,
        "mode": row.mode.value,
        "image": row.image,
        "status": status,
        "info": {
            "status": condition.machine_status.value,
            "is_running": condition.status is Status.RUNNING,
            "user_requested_stop": row.user_requested_stop,
            "ready": ready,
        },
        "ready": ready,
        "provisioning": provisioning(view),
        "lifecycle": {
            **lease(row),
            "restart_policy": row.config.get("restart_policy"),
            "max_restarts": row.config.get("max_restarts", 0),
        },
        "resources": {**sizes(row), "status": status},
        "config": {
            **sizes(row),
            **row.config,
            "ssh_access": row.ssh.get("enabled", False),
            "network_config": _network_config(row),
        },
        "ip": None,
        "image_capabilities": [],
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def lease(row: Workspace) -> dict[str, Any]:
    """The lease of a temporary workspace; a permanent one has none."""
    return {
        "ttl": row.ttl,
        "ttl_action": row.ttl_action.value if row.ttl_action else None,
        "remove_on_exit": row.remove_on_exit,
        "ttl_expires_at": _iso(row.lease_expires_at),
    }


def resources(view: WorkspaceView) -> dict[str, Any]:
    """The `resources` of GET /workspace/:id/resources."""
    status = view.condition.status.value
    return {**sizes(view.row), "cpu_config": {"quota": "standard"}, "status": status}


def archived(view: WorkspaceView) -> dict[str, Any]:
    """A workspace whose machine is gone for good, with when and why."""
    row = view.row
    return {
        **workspace(view),
        "archived_at": _iso(row.archived_at),
        "archived_reason": row.archived_reason,
        "deleted": row.deleted_at is not None,
    }


def details(found: Details) -> dict[str, Any]:
    """Everything about a workspace (spec 4.1)."""
    view = found.lifecycle.workspace
    shown = workspace(view)
    return {
        "workspace": shown,
        "token": found.token,
        "stats": None if found.stats is None else found.stats.model_dump(),
        "api_access": {
            "enabled": view.row.runtime_enabled,
            "running": view.row.runtime_enabled and shown["ready"],
            "token": found.token,
            "expires_at": _iso(found.token_expires_at),
        },
        "lifecycle": lifecycle(found.lifecycle),
        "config": shown["config"],
    }


def quota(name: str, found: Quota) -> dict[str, Any]:
    """The account's limits and use, by the names the clients know (spec 4.1).

    Snapshots take room as disks do, so all that is owned counts them too.
    """
    owned, running = _use(found.owned), _use(found.running)
    owned["disk_size_mb"] += found.owned.snapshot_mb
    owned["snapshot_mb"] = found.owned.snapshot_mb
    return {
        "plan": "self-hosted",
        "planLabel": name,
        "canCreate": found.reason is None,
        "reason": found.reason,
        "maxWorkspaces": found.max_workspaces,
        "currentWorkspaces": found.owned.count,
        "maxSandboxes": found.max_workspaces,
        "currentSandboxes": found.owned.count,
        "limits": {
            "cpus": found.largest.cpus,
            "memory_mb": found.largest.memory_mb,
            "disk_size_mb": found.largest.disk_mb,
        },
        "pool": {**dict.fromkeys(owned), "count": found.max_workspaces},
        "pool_usage": owned,
        "running_pool": {**dict.fromkeys(running), "count": found.max_running},
        "running_pool_usage": running,
    }


def _use(use: Use) -> dict[str, Any]:
    return {
        "count": use.count,
        "cpus": use.cpus,
        "memory_mb": use.memory_mb,
        "disk_size_mb": use.disk_mb,
    }


def sizes(row: Workspace) -> dict[str, Any]:
    """Cores and MiB; the disk by both of its names (spec 0)."""
    return {
        "cpus": int(row.cpus) if row.cpus.is_integer() else row.cpus,
        "memory_mb": row.memory_mb,
        "disk_size_mb": row.disk_mb,
        "writable_size_mb": row.disk_mb,
    }


def provisioning(view: WorkspaceView) -> dict[str, Any] | None:
    """How the creation went, or that the workspace is being deleted."""
    doing = view.doing
    operation = doing if doing and doing.kind is OperationKind.DELETE else view.provision
    if operation is None:
        return None
    return {
        "state": _STATES[operation.state],
        "phase": operation.phase.value,
        "message": operation.message,
        "error": _error(operation),
        "created_at": iso(operation.created_at),
        "updated_at": iso(operation.updated_at),
        "completed_at": _iso(operation.completed_at),
    }


def operation(found: Operation) -> dict[str, Any]:
    """A long operation: what it is, how far, and how it ended.

    `error` is the answer of a call that would have waited for it.
    """
    failed = found.state is OperationState.FAILED
    failure = failure_of_operation(found) if failed else None
    return {
        "id": found.id,
        "workspace_id": found.workspace_id,
        "kind": found.kind.value,
        "state": found.state.value,
        "phase": found.phase.value,
        "message": found.message,
        "error": None
        if failure is None
        else {
            "code": failure.code,
            "message": failure.message,
            "status": failure.status,
            "details": failure.details,
        },
        "files_restored": found.params.get("files"),
        "created_at": iso(found.created_at),
        "completed_at": _iso(found.completed_at),
    }


def lifecycle(found: LifecycleView) -> dict[str, Any]:
    """The flat fields of GET /workspace/:id/lifecycle."""
    view, able = found.workspace, found.capabilities
    row = view.row
    tier = able.tier_of(row.config.get("driver"))
    return {
        "mode": row.mode.value,
        "status": view.condition.status.value,
        "restart_policy": row.config.get("restart_policy"),
        "max_restarts": row.config.get("max_restarts", 0),
        "restart_info": found.restart_info,
        "operation": None if view.newest is None else operation(view.newest),
        **lease(row),
        "uptime": _uptime(view),
        "expires_at": _iso(row.lease_expires_at),
        "created_at": iso(row.created_at),
        "idle": None,
        "snapshot_supported": tier.snapshot,
        "snapshot_unavailable_reason": tier.snapshot_unavailable_reason,
        "pause_supported": able.pause,
    }


def machine(found: MachineView) -> dict[str, Any]:
    """What GET /workspace/:id/info tells of the machine; timings in milliseconds."""
    row, seen = found.workspace.row, found.machine
    wanted = row.config.get("driver")
    tier = found.capabilities.tier_of((seen.tier if seen else None) or wanted)
    return {
        "id": row.id,
        "status": found.workspace.condition.status.value,
        "state": seen.state.value if seen else "absent",
        "driver": wanted or Driver.AUTO.value,
        "tier": tier.tier,
        "tier_reason": "it was asked for"
        if wanted == tier.tier
        else found.capabilities.tier_reason,
        "runtime": tier.runtime or found.capabilities.runtime,
        "kernel": tier.kernel,
        "accelerator": tier.accelerator,
        "accelerator_reason": tier.reason if tier.accelerator else None,
        "image": row.image,
        "ip": row.address,
        "boot_id": seen.boot_id if seen else None,
        "started_at": _iso(seen.started_at) if seen else None,
        "uptime": _uptime(found.workspace),
        "boot_timings_ms": dict(seen.timings) if seen else {},
        "resources": sizes(row),
        "last_exit": row.observed_exit,
        "error": seen.error if seen else None,
        "snapshot_supported": tier.snapshot,
        "snapshot_unavailable_reason": tier.snapshot_unavailable_reason,
        "pause_supported": found.capabilities.pause,
        "snapshot": snapshot(seen.snapshot) if seen else None,
    }


def snapshot(found: Snapshot | None) -> dict[str, Any] | None:
    """The last snapshot: when it was taken, its bytes, and for how long the machine stood still."""
    if found is None:
        return None
    return {
        "created_at": iso(found.at),
        "memory_bytes": found.memory_bytes,
        "disk_bytes": found.disk_bytes,
        "size_bytes": found.memory_bytes + found.disk_bytes,
        "frozen_ms": found.taken_ms,
    }


def network(row: Workspace, linked: Callers, gateway: str) -> dict[str, Any]:
    """The flat fields of GET /workspace/:id/network; `gateway` is the subnet's first address.

    `ingress` shows all that are admitted: the edge, the owner's entries and the callers. Of
    callers that the credential does not see there is only the number, `hidden_links`.
    """
    stored, callers = row.network, linked.seen
    public = bool(stored.get("public_access", False))
    addresses = [address for address in (caller.address for caller in callers) if address]
    return {
        "ip": row.address,
        "gateway": gateway,
        "public_access": public,
        "allow_internet": bool(stored.get("allow_internet", True)),
        "ingress": [*(["host"] if public else []), *(stored.get("ingress") or ()), *addresses],
        "ingress_ports": list(stored.get("ingress_ports") or ()),
        "egress": list(stored.get("egress") or ()),
        "egress_ports": list(stored.get("egress_ports") or ()),
        "outbound_ip": stored.get("outbound_ip"),
        "outbound_country_code": None,
        "outbound_mode": "managed",
        "outbound_proxy": None,
        "bandwidth_mbps": stored.get("bandwidth_mbps"),
        "private_link_ids": [caller.id for caller in callers],
        "private_links": [
            {"id": caller.id, "workspace_id": caller.id, "name": caller.name, "ip": caller.address}
            for caller in callers
        ],
        "hidden_links": len(linked.hidden),
        "in_force": not stored.get(PENDING, False),
    }


def blocked(log: BlockedLog) -> dict[str, Any]:
    """What GET /workspace/:id/network/blocked tells; `time` is when it was last refused."""
    return {
        "blocked": [
            {
                "time": iso(entry.last),
                "first_time": iso(entry.first),
                "protocol": entry.protocol,
                "destination": entry.destination,
                "port": entry.port,
                "name": entry.name,
                "reason": entry.reason,
                "count": entry.count,
            }
            for entry in log.blocked
        ],
        "packets": log.packets,
    }


def _network_config(row: Workspace) -> dict[str, Any]:
    """The policy without links, which not everyone who sees the workspace may see."""
    stored = row.network
    public = bool(stored.get("public_access", False))
    return {
        "allow_internet": bool(stored.get("allow_internet", True)),
        "public_ingress": public,
        "public_access": public,
        **{
            name: list(stored.get(name) or ())
            for name in ("ingress", "ingress_ports", "egress", "egress_ports")
        },
        "bandwidth_mbps": stored.get("bandwidth_mbps"),
    }


def _error(operation: Operation) -> dict[str, str] | None:
    if operation.state in UNFINISHED or not operation.error:
        return None
    return {
        "code": str(operation.error.get("code", "")),
        "message": str(operation.error.get("message", "")),
    }


def _uptime(view: WorkspaceView) -> int:
    """Whole seconds since the last start; 0 while it does not run."""
    started = view.row.started_at
    if started is None or view.condition.status not in {Status.RUNNING, Status.PAUSED}:
        return 0
    return max(0, int((now() - started).total_seconds()))


def _iso(value: datetime | None) -> str | None:
    return None if value is None else iso(value)
