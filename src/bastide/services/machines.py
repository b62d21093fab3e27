"""From the row of a workspace to the documents its machine is made by."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import (
    UP,
    Driver,
    MachineSpec,
    MachineState,
    MachineStatus,
    RegistryAuth,
    Resources,
    RuntimeAccess,
    SshAccess,
)
from bastide.domain.network import NetworkPolicy
from bastide.domain.ssh import SshConfig
from bastide.store.tables import Workspace

MIB = 1024 * 1024
"""Bytes; the unit of the columns that end in `_mb`."""


def policy_of(row: Workspace) -> NetworkPolicy:
    """The network policy the row asks for."""
    config = ssh_of(row)
    return NetworkPolicy.model_validate(
        {key: value for key, value in row.network.items() if key in NetworkPolicy.model_fields}
        | {"ssh": config is not None and config.enabled}
    )


def ssh_of(row: Workspace) -> SshConfig | None:
    """SSH as the row has it; None when nobody has asked for it yet."""
    return SshConfig.model_validate(row.ssh) if row.ssh else None


def ssh_access_of(row: Workspace) -> SshAccess:
    """What the SSH server of the machine must know."""
    config = ssh_of(row)
    if config is None or not config.enabled:
        return SshAccess()
    return SshAccess(
        enabled=True,
        host_key=config.host_key.private,
        password_hash=config.password.hash if config.password else None,
        keys=tuple(key.line for key in config.keys),
    )


def image_auth_of(row: Workspace) -> RegistryAuth | None:
    """The credentials the row's image is asked for with."""
    return RegistryAuth.model_validate(row.image_auth) if row.image_auth else None


def access_of(row: Workspace) -> tuple[NetworkPolicy, RuntimeAccess]:
    """Who may reach the machine, and whether its runtime answers them."""
    return policy_of(row), RuntimeAccess(
        enabled=row.runtime_enabled, token=row.raw_token if row.runtime_enabled else None
    )


def spec_of(row: Workspace, pids: int) -> MachineSpec:
    """Everything the engine needs; `pids` is the most processes of one workspace."""
    network, runtime = access_of(row)
    return MachineSpec(
        id=row.id,
        image=row.image,
        hostname=_hostname(row),
        resources=resources_of(row, pids),
        network=network,
        runtime=runtime,
        ssh=ssh_access_of(row),
        env={item["key"]: item["value"] for item in row.config.get("env") or ()},
        cmd=tuple(row.config["cmd"]) if row.config.get("cmd") else None,
        driver=Driver(row.config.get("driver") or Driver.AUTO),
    )


def resting_spec_of(row: Workspace, pids: int) -> MachineSpec:
    """A boot for the sake of the files alone: the agent and nothing else, and no network.

    No command of the owner runs, nobody reaches it, and it reaches nobody.
    """
    return spec_of(row, pids).model_copy(
        update={
            "network": NetworkPolicy(allow_internet=False),
            "runtime": RuntimeAccess(),
            "ssh": SshAccess(),
            "env": {},
            "cmd": (),  # not even what the image would run
        }
    )


def resources_of(row: Workspace, pids: int) -> Resources:
    """The limits the row asks for."""
    return Resources(cpus=row.cpus, memory_mb=row.memory_mb, disk_mb=row.disk_mb, pids=pids)


def _hostname(row: Workspace) -> str:
    """The slug as a DNS label, else the id."""
    label = (row.slug or row.id.replace("_", "-"))[:63].strip("-")
    return label or "workspace"


def observed(status: MachineStatus, at: datetime | None = None) -> dict[str, Any]:
    """The columns that hold what was seen of a machine."""
    running = status.state is MachineState.RUNNING
    up = status.state in UP
    return {
        "observed_state": status.state,
        "observed_at": at or now(),
        "observed_exit": None if status.exit is None else status.exit.model_dump(mode="json"),
        "address": status.address,
        "boot_id": status.boot_id if up else None,
        "started_at": status.started_at,
        "ready": running,
        "snapshot_mb": _snapshot_mb(status),
        "timings": dict(status.timings),
    }


def _snapshot_mb(status: MachineStatus) -> int:
    taken = status.snapshot
    return 0 if taken is None else -(-(taken.memory_bytes + taken.disk_bytes) // MIB)


def unobserved(at: datetime | None = None) -> dict[str, Any]:
    """The columns when the engine knows no such machine."""
    return {
        "observed_state": MachineState.ABSENT,
        "observed_at": at or now(),
        "observed_exit": None,
        "address": None,
        "boot_id": None,
        "ready": False,
    }


def desired_of(state: MachineState) -> DesiredState:
    """What to want of a machine that is to stay as it is now: one that is not up stays stopped."""
    match state:
        case MachineState.RUNNING:
            return DesiredState.RUNNING
        case MachineState.PAUSED:
            return DesiredState.PAUSED
    return DesiredState.STOPPED
