"""Traits of an image, which rendering finds out. Empty for images that were DONE before.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("placeholder", sa.String(length=64), nullable=True))
    op.add_column("images", sa.Column("dominant_colour", sa.String(length=7), nullable=True))
    op.add_column("images", sa.Column("metadata_removed", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_column("metadata_removed")
        batch_op.drop_column("dominant_colour")
        batch_op.drop_column("placeholder")
