"""SSH: the short name of a workspace, its host key, and who may enter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bastide.store import columns

revision = "ssh"
down_revision = "leases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ssh_id", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("ssh", columns.Document, server_default="{}", nullable=False))
        batch_op.create_index("uq_workspaces_ssh_id", ["ssh_id"], unique=True)


def downgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.drop_index("uq_workspaces_ssh_id")
        batch_op.drop_column("ssh")
        batch_op.drop_column("ssh_id")
