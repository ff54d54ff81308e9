"""Statements that SQLAlchemy spells differently for SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.dialects import postgresql, sqlite

from image_service.models import Base


def insert_if_new(dialect: str, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves an existing row as it is. ``dialect`` is ``sqlite`` or ``postgresql``."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def insert_or_update(
    dialect: str, table: type[Base], *, key: Sequence[str], changes: Mapping[str, Any], where: ColumnElement[bool]
) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that changes an existing row with the same key, if it fulfils a condition."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_update(index_elements=key, set_=changes, where=where)
