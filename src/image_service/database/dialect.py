"""Statements that SQLAlchemy spells differently for SQLite and PostgreSQL."""

from sqlalchemy.dialects import postgresql, sqlite

from image_service.models import Base


def insert_if_new(dialect: str, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves an existing row as it is. ``dialect`` is ``sqlite`` or ``postgresql``."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()
