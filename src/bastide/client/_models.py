"""What the API answers, typed. Fields this client does not know are kept as attributes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bastide.client._errors import CommandFailed

Mode = Literal["permanent", "temporary"]
MOST_SHOWN = 2000


class Model(BaseModel):
    """A frozen answer; unknown fields are allowed and kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ProvisioningFault(Model):
    """Why a creation failed."""

    code: str = "CREATE_FAILED"
    message: str = ""


class Provisioning(Model):
    """How far a creation, start or deletion has come."""

    state: str
    phase: str = ""
    message: str | None = None
    error: ProvisioningFault | None = None


class Resources(Model):
    """Cores, and MiB of memory and disk; `status` is that of their workspace."""

    cpus: float | None = None
    memory_mb: int | None = None
    disk_size_mb: int | None = None
    status: str | None = None


class WorkspaceInfo(Model):
    """What the machine does now."""

    status: str | None = None
    is_running: bool = False


class Workspace(Model):
    """One workspace as the API shows it."""

    id: str
    name: str
    slug: str | None = None
    namespace: str | None = None
    mode: str = "permanent"
    image: str | None = None
    status: str = ""
    ready: bool = False
    info: WorkspaceInfo | None = None
    provisioning: Provisioning | None = None
    resources: Resources | None = None
    lifecycle: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def state(self) -> str:
        """One word for people: failed, deleting, creating, ready, or the machine's status."""
        provisioning = self.provisioning
        if provisioning is not None:
            if provisioning.state == "failed":
                return "failed"
            if provisioning.phase == "deleting":
                return "deleting"
            if provisioning.state in ("queued", "running"):
                return "creating"
        if self.ready:
            return "ready"
        return (self.info.status if self.info else None) or self.status


class WorkspacePage(Model):
    """One page of a list, and how many there are in all."""

    workspaces: list[Workspace] = Field(default_factory=list)
    total: int = 0
    page: int = 1
    limit: int = 0


class Refusal(Model):
    """Why an operation failed, as a call that waits for it would have been refused."""

    code: str = "server_error"
    message: str = "the operation failed"
    status: int = 500
    details: dict[str, Any] = Field(default_factory=dict)


class Operation(Model):
    """A long operation on a workspace: `queued`, `running`, `done` or `failed`."""

    id: str
    workspace_id: str
    kind: str = ""
    state: str = ""
    message: str = ""
    files_restored: int | None = None
    error: Refusal | None = None


class Lifecycle(Model):
    """Mode, status and restart policy; `uptime` in seconds.

    `operation` is the newest long operation, going on or ended.
    """

    mode: str
    status: str
    restart_policy: str | None = None
    max_restarts: int | None = None
    ttl: str | int | None = None
    ttl_action: str | None = None
    remove_on_exit: bool = False
    uptime: float | None = None
    ttl_expires_at: datetime | None = None
    restart_info: dict[str, Any] | None = None
    operation: Operation | None = None
    pause_supported: bool | None = None
    snapshot_supported: bool | None = None
    snapshot_unavailable_reason: str | None = None


class Resized(Model):
    """What a change of sizes changed; `relaunched`: the machine was booted anew for it."""

    updated: dict[str, float] = Field(default_factory=dict)
    relaunched: bool = False
    resources: Resources | None = None


class Quota(Model):
    """Limits and use of an account; a limit of None is none."""

    can_create: bool = Field(True, alias="canCreate")
    reason: str | None = None
    max_workspaces: int | None = Field(None, alias="maxWorkspaces")
    current_workspaces: int = Field(0, alias="currentWorkspaces")
    limits: dict[str, float | None] = Field(default_factory=dict)
    pool: dict[str, float | None] = Field(default_factory=dict)
    pool_usage: dict[str, float] = Field(default_factory=dict)
    running_pool: dict[str, float | None] = Field(default_factory=dict)
    running_pool_usage: dict[str, float] = Field(default_factory=dict)


class Estimate(Model):
    """Credits for each `period`: idle, usual, and with every core busy."""

    min: float
    avg: float
    max: float
    period: str


class Snapshot(Model):
    """The last snapshot of a workspace: bytes, and milliseconds the machine stood still for it."""

    created_at: str
    memory_bytes: int = 0
    disk_bytes: int = 0
    size_bytes: int = 0
    frozen_ms: float = 0


class MachineInfo(Model):
    """What runs a workspace now; the stages of its last boot in milliseconds.

    `state` is that of the machine itself, `error` why it could not be run, `last_exit` how its
    last end came about (`at`, `code`, `signal`, `oom`, `requested`, `reason`), `uptime` seconds.
    """

    status: str
    state: str | None = None
    driver: str | None = None
    tier: str | None = None
    tier_reason: str | None = None
    runtime: str | None = None
    kernel: str | None = None
    accelerator: str | None = None
    accelerator_reason: str | None = None
    snapshot_supported: bool | None = None
    snapshot_unavailable_reason: str | None = None
    snapshot: Snapshot | None = None
    boot_timings_ms: dict[str, float] = Field(default_factory=dict)
    image: str | None = None
    ip: str | None = None
    boot_id: str | None = None
    started_at: datetime | None = None
    uptime: float | None = None
    resources: Resources | None = None
    last_exit: dict[str, Any] | None = None
    error: str | None = None


class Category(Model):
    """What a group of images is for."""

    id: str
    label: str = ""


class Image(Model):
    """One image of the catalogue."""

    id: str
    image: str | None = None
    label: str | None = None
    desc: str | None = None
    category: str | None = None
    ready: bool | None = None
    error: str | None = None
    size_bytes: int | None = None
    software: list[str] = Field(default_factory=list)


class ExecResult(Model):
    """A command and how it ended. `exit_code` is None while it runs."""

    id: str
    command: list[str] = Field(default_factory=list)
    status: str = ""
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    error: str | None = None

    def check(self) -> ExecResult:
        """This result, when the exit code is 0.

        Raises:
            CommandFailed: it is not; the message holds the end of standard error.
        """
        if self.exit_code != 0:
            said = (self.stderr or self.stdout or self.error or "").strip()[-MOST_SHOWN:]
            raise CommandFailed(f"{self.command} ended with code {self.exit_code}: {said}")
        return self


class FileEntry(Model):
    """One entry of a directory; `size` in bytes."""

    name: str
    path: str
    type: str
    size: int | None = None
    modified: datetime | None = None


class FileStat(FileEntry):
    """What is known of one path; links are not followed."""

    permissions: str | None = None
    symlink_target: str | None = None


class FileText(Model):
    """A file's text; `size` is the whole file's, in bytes."""

    path: str
    content: str
    size: int
    lines: int | None = None
