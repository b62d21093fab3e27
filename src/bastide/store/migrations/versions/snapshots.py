"""What the last snapshot of a workspace takes, for the quota."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "snapshots"
down_revision = "images"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "workspaces",
        sa.Column("snapshot_mb", sa.Integer(), server_default="0", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("workspaces", "snapshot_mb")
