"""Archives of workspaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bastide.store import columns

revision = "archives"
down_revision = "history"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("file", sa.String(length=80), nullable=False),
        sa.Column("operation_id", sa.String(length=32), nullable=True),
        sa.Column("vm_paths", columns.Document, nullable=False),
        sa.Column("exclude_vm_paths", columns.Document, nullable=False),
        sa.Column("image", sa.String(length=255), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("consistency", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("tar_bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("error", columns.Document, nullable=True),
        sa.Column("created_at", columns.Instant(), nullable=False),
        sa.Column("completed_at", columns.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_archives_account_id_accounts"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name="fk_archives_workspace_id_workspaces"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_archives"),
    )
    op.create_index(
        "uq_archives_workspace_id_version", "archives", ["workspace_id", "version"], unique=True
    )
    op.create_index("ix_archives_account_id_state", "archives", ["account_id", "state"])
    op.create_index("ix_archives_state", "archives", ["state"])


def downgrade() -> None:
    op.drop_table("archives")
