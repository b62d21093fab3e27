"""Credentials a workspace's image is asked for with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bastide.store import columns

revision = "images"
down_revision = "archives"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("image_auth", columns.Document, nullable=True))


def downgrade() -> None:
    op.drop_column("workspaces", "image_auth")
