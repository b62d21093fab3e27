"""Every table of the control plane.

What is wanted (`desired_state`) and what the engine was last seen to run (`observed_*`) are
separate columns of a workspace; what is being done about the difference is a row of
`operations` (architecture, State). `provisioned_at` is null until the creation succeeded.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bastide.domain.archive import ArchiveState
from bastide.domain.identifiers import ACCOUNT, ARCHIVE, KEY, OPERATION, WORKSPACE, new_id
from bastide.domain.instant import now
from bastide.domain.lease import TtlAction
from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind, OperationState, Phase
from bastide.domain.scope import Scope
from bastide.store.columns import Document, Instant, words


class Table(DeclarativeBase):
    """Base of all tables; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Account(Table):
    """Who owns workspaces and keys. `limits` holds what differs from the settings."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: new_id(ACCOUNT))
    name: Mapped[str] = mapped_column(String(255))
    limits: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)


class ApiKey(Table):
    """A client id and the SHA-256 of its secret; the secret itself is shown once and not kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: new_id(KEY))
    account_id: Mapped[str] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(String(64), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scope: Mapped[Scope] = mapped_column(words(Scope))
    namespace: Mapped[str | None] = mapped_column(String(128))
    workspace_id: Mapped[str | None] = mapped_column(String(40))
    label: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)


class RevokedToken(Table):
    """A scoped token taken back before its time; the row may go once it would have expired."""

    __tablename__ = "revoked_tokens"

    jti: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)


class Workspace(Table):
    """What a user owns, what is wanted of it, and what was last seen of its machine.

    `config` is the configuration as it was given. `network` holds the fields of `NetworkPolicy`
    and `public_access_set`, which is null until somebody chooses. The lease of a temporary
    workspace: `ttl` as the owner wrote it, `lease_expires_at` null once it has ended, and
    `lease_version`, which goes up with every change, so that an expiry and a renewal cannot both
    win. `restarts` holds `Restarts`. `archived_at` and `archived_reason` (`destroyed`, `exit`,
    `ttl`) tell that the machine was removed for good while the record went on. Memory and disk
    in MiB, and so is `snapshot_mb`, what the last snapshot takes of both; `cpus` in cores,
    `timings` in milliseconds per stage.

    `raw_token` is a secret kept in clear: the edge puts it in place of the gateway token on every
    request and `GET …/token/raw` hands it out, so it must be readable. It opens this one
    workspace only and dies with the next rotation. The same is true of the host key in `ssh`, which
    holds `SshConfig` (empty: SSH was never asked for); passwords in it are hashed. `ssh_id` is
    never given again, so that nobody reaches another workspace by an old command. `image_auth` is
    a `RegistryAuth`, in clear too: the registry is asked again whenever the machine is made anew.
    """

    __tablename__ = "workspaces"
    __table_args__ = (
        Index("ix_workspaces_account_id_created_at", "account_id", "created_at"),
        Index(
            "uq_workspaces_slug",
            "account_id",
            "slug",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "uq_workspaces_idempotency_key",
            "account_id",
            "idempotency_key",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("uq_workspaces_ssh_id", "ssh_id", unique=True),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id(WORKSPACE))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    namespace: Mapped[str | None] = mapped_column(String(128))
    slug: Mapped[str | None] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(255))
    logo: Mapped[str | None] = mapped_column(Text)
    image: Mapped[str] = mapped_column(String(255))
    image_auth: Mapped[dict[str, Any] | None] = mapped_column(Document)
    mode: Mapped[Mode] = mapped_column(words(Mode), default=Mode.PERMANENT)
    config: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    cpus: Mapped[float] = mapped_column(Float)
    memory_mb: Mapped[int] = mapped_column(Integer)
    disk_mb: Mapped[int] = mapped_column(Integer)

    desired_state: Mapped[DesiredState] = mapped_column(
        words(DesiredState), default=DesiredState.RUNNING
    )
    user_requested_stop: Mapped[bool] = mapped_column(default=False)
    provisioned_at: Mapped[datetime | None] = mapped_column(Instant)
    restarts: Mapped[dict[str, Any]] = mapped_column(Document, default=dict, server_default="{}")
    archived_at: Mapped[datetime | None] = mapped_column(Instant)
    archived_reason: Mapped[str | None] = mapped_column(String(16))

    ttl: Mapped[str | None] = mapped_column(String(32))
    ttl_action: Mapped[TtlAction | None] = mapped_column(words(TtlAction))
    remove_on_exit: Mapped[bool] = mapped_column(default=False, server_default=false())
    lease_expires_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    lease_version: Mapped[int] = mapped_column(Integer, default=0, server_default="0")

    observed_state: Mapped[MachineState] = mapped_column(
        words(MachineState), default=MachineState.ABSENT
    )
    observed_at: Mapped[datetime | None] = mapped_column(Instant)
    observed_exit: Mapped[dict[str, Any] | None] = mapped_column(Document)
    address: Mapped[str | None] = mapped_column(String(15))
    boot_id: Mapped[str | None] = mapped_column(String(64))
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    ready: Mapped[bool] = mapped_column(default=False)
    snapshot_mb: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    timings: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)

    network: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    runtime_enabled: Mapped[bool] = mapped_column(default=False)
    raw_token: Mapped[str | None] = mapped_column(String(128))
    generation: Mapped[int] = mapped_column(Integer, default=1)

    ssh_id: Mapped[str | None] = mapped_column(String(16))
    ssh: Mapped[dict[str, Any]] = mapped_column(Document, default=dict, server_default="{}")

    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    updated_at: Mapped[datetime] = mapped_column(Instant, default=now)
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)

    def __repr__(self) -> str:
        """Without secrets, whatever logs it."""
        return f"Workspace({self.id!r})"


class Archive(Table):
    """A backup of a workspace's files; it outlives the workspace.

    `file` is its opaque name where archives are kept, `operation_id` what makes it. `size_bytes`
    and `sha256` are of the compressed file, `tar_bytes` of what is in it. `consistency` is what the
    workspace was meanwhile: `running` or `stopped`. `disk_mb` is the disk it came from, in MiB.
    """

    __tablename__ = "archives"
    __table_args__ = (
        Index("uq_archives_workspace_id_version", "workspace_id", "version", unique=True),
        Index("ix_archives_account_id_state", "account_id", "state"),
        Index("ix_archives_state", "state"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: new_id(ARCHIVE))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    version: Mapped[str] = mapped_column(String(64))
    state: Mapped[ArchiveState] = mapped_column(words(ArchiveState), default=ArchiveState.CREATING)
    file: Mapped[str] = mapped_column(String(80))
    operation_id: Mapped[str | None] = mapped_column(String(32))
    vm_paths: Mapped[list[str]] = mapped_column(Document, default=list)
    exclude_vm_paths: Mapped[list[str]] = mapped_column(Document, default=list)
    image: Mapped[str] = mapped_column(String(255))
    disk_mb: Mapped[int] = mapped_column(Integer)
    consistency: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    tar_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    completed_at: Mapped[datetime | None] = mapped_column(Instant)


class Operation(Table):
    """One long operation. At most one of a workspace is unfinished.

    `lock_token` names the pass that works on it now, until `lock_expires_at`; whoever writes
    without that token writes nothing.
    """

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_unfinished",
            "workspace_id",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index("ix_operations_workspace_id_created_at", "workspace_id", "created_at"),
        Index("ix_operations_workspace_id_kind_created_at", "workspace_id", "kind", "created_at"),
        Index("ix_operations_state_run_after", "state", "run_after"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: new_id(OPERATION))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"))
    kind: Mapped[OperationKind] = mapped_column(words(OperationKind))
    state: Mapped[OperationState] = mapped_column(
        words(OperationState), default=OperationState.QUEUED
    )
    phase: Mapped[Phase] = mapped_column(words(Phase), default=Phase.QUEUED)
    message: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    params: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    updated_at: Mapped[datetime] = mapped_column(Instant, default=now)
    completed_at: Mapped[datetime | None] = mapped_column(Instant)
    run_after: Mapped[datetime] = mapped_column(Instant, default=now)
    lock_token: Mapped[str | None] = mapped_column(String(64))
    lock_owner: Mapped[str | None] = mapped_column(String(128))
    lock_expires_at: Mapped[datetime | None] = mapped_column(Instant)
