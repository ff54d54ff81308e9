"""Recipes: which one an image has, what its outputs were made with, and which of them are still to be made.

Only adds columns, an index and a constraint that no row of the version before violates: that one can run beside it.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LACKING = sa.text("outputs_due_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("images", sa.Column("recipe_name", sa.String(length=64), nullable=True))
    op.add_column("images", sa.Column("recipe_attempt", sa.Integer(), server_default="0", nullable=False))
    op.add_column("images", sa.Column("pending", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("images", sa.Column("left_out", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("images", sa.Column("outputs_due_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("images", sa.Column("outputs_lease_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("images", sa.Column("outputs_attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("thumbnails", sa.Column("fingerprint", sa.String(length=16), nullable=True))
    op.create_index(
        "ix_images_outputs_due_at", "images", ["outputs_due_at"], postgresql_where=LACKING, sqlite_where=LACKING
    )
    if op.get_context().dialect.name == "postgresql":
        # The version before would make its built-in outputs of any image. So it cannot claim one of a named recipe: the
        # error costs no attempt, and the message goes to another worker. No row that it adds itself violates this.
        op.execute(
            "ALTER TABLE images ADD CONSTRAINT ck_images_recipe_known "
            "CHECK (recipe_name IS NULL OR status <> 'PROCESSING' OR lease_until IS NULL OR recipe_attempt = attempt)"
        )


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_images_recipe_known"), "images")
    op.drop_index("ix_images_outputs_due_at", "images")
    op.drop_column("thumbnails", "fingerprint")
    names = ("outputs_attempts", "outputs_lease_until", "outputs_due_at", "left_out", "pending", "recipe_attempt")
    for name in (*names, "recipe_name"):
        op.drop_column("images", name)
