"""Leases, restarts, and what is left of destroyed workspaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bastide.store import columns

revision = "leases"
down_revision = "foundation"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("restarts", columns.Document, server_default="{}", nullable=False)
        )
        batch_op.add_column(sa.Column("archived_at", columns.Instant(), nullable=True))
        batch_op.add_column(sa.Column("archived_reason", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("ttl", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("ttl_action", sa.String(16), nullable=True))
        batch_op.add_column(
            sa.Column("remove_on_exit", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("lease_expires_at", columns.Instant(), nullable=True))
        batch_op.add_column(
            sa.Column("lease_version", sa.Integer(), server_default="0", nullable=False)
        )
        batch_op.create_index(
            batch_op.f("ix_workspaces_lease_expires_at"), ["lease_expires_at"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_workspaces_lease_expires_at"))
        for name in (
            "lease_version",
            "lease_expires_at",
            "remove_on_exit",
            "ttl_action",
            "ttl",
            "archived_reason",
            "archived_at",
            "restarts",
        ):
            batch_op.drop_column(name)
