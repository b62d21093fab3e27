"""The newest operation of a kind is found without reading a workspace's history."""

from __future__ import annotations

from alembic import op

revision = "history"
down_revision = "ssh"
branch_labels = None
depends_on = None

NAME = "ix_operations_workspace_id_kind_created_at"


def upgrade() -> None:
    op.create_index(NAME, "operations", ["workspace_id", "kind", "created_at"])


def downgrade() -> None:
    op.drop_index(NAME, "operations")
