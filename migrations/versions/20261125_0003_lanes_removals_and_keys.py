"""Lanes, idempotency keys, reprocessing, retention and deletion.

Only adds columns, tables and indexes, and recreates one index with other columns, so that the version before it can run
beside it.

Revision: 0003, after 0002.
"""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNCLAIMED = sa.text("status = 'PROCESSING' AND lease_until IS NULL")
NOT_DONE = sa.text("status <> 'DONE'")
WITH_ORIGINAL = sa.text("finished_at IS NOT NULL AND original_removed_at IS NULL")


def upgrade() -> None:
    lane = sa.Enum("normal", "express", "backfill", name="lane", native_enum=False, length=16)
    op.add_column("images", sa.Column("lane", lane, server_default="normal", nullable=False))
    op.add_column("images", sa.Column("recipe", sa.String(length=16), nullable=True))
    op.add_column("images", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    op.add_column("images", sa.Column("original_removed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ux_images_idempotency_key", "images", ["idempotency_key"], unique=True)
    op.create_index("ix_images_finished_at", "images", ["finished_at"])
    op.create_index("ix_images_not_done", "images", ["status", "id"], postgresql_where=NOT_DONE, sqlite_where=NOT_DONE)
    op.create_index(
        "ix_images_with_original",
        "images",
        ["finished_at"],
        postgresql_where=WITH_ORIGINAL,
        sqlite_where=WITH_ORIGINAL,
    )
    _index_unclaimed("lane", "queued_at")
    op.create_table(
        "removals",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_removals")),
    )
    op.create_index("ix_removals_due_at", "removals", ["due_at"])
    identity = op.create_table(
        "identity", sa.Column("id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("id", name=op.f("pk_identity"))
    )
    op.bulk_insert(identity, [{"id": uuid4()}])


def downgrade() -> None:
    op.drop_table("identity")
    op.drop_table("removals")
    for name in ("with_original", "not_done", "finished_at"):
        op.drop_index(f"ix_images_{name}", "images")
    op.drop_index("ux_images_idempotency_key", "images")
    _index_unclaimed("queued_at")
    for name in ("original_removed_at", "idempotency_key", "recipe", "lane"):
        op.drop_column("images", name)


def _index_unclaimed(*columns: str) -> None:
    """Recreate the index with these columns."""
    op.drop_index("ix_images_unclaimed", "images")
    op.create_index("ix_images_unclaimed", "images", columns, postgresql_where=UNCLAIMED, sqlite_where=UNCLAIMED)
