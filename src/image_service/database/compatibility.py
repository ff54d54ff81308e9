"""Whether this version can serve a schema that a later version has migrated, as when that version is rolled back."""

from collections.abc import Set as AbstractSet

import structlog
from sqlalchemy import Connection, inspect

from image_service.errors import StartError
from image_service.models import Base

_log = structlog.get_logger(__name__)


def check_newer_schema(connection: Connection, revisions: AbstractSet[str]) -> None:
    """Return if this version can serve the schema although it does not know its revisions, and log it.

    Raises:
        StartError: something that this version needs is missing, or it would have to write a column that it does not
            know.
    """
    newer = ", ".join(sorted(revisions))
    if obstacles := _obstacles(connection):
        raise StartError(
            f"The database's schema (revision {newer}) is of a later version than this one, which cannot serve it: "
            f"{'; '.join(obstacles)}. Start the version that has migrated it, or restore a backup from before."
        )
    _log.warning(
        "database schema is of a later version; this version can serve it, and leaves it as it is", revision=newer
    )


def _obstacles(connection: Connection) -> list[str]:
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    found: list[str] = []
    for table in Base.metadata.sorted_tables:
        if table.name not in present:
            found.append(f"the table {table.name} is missing")
            continue
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        known = {column.name for column in table.c}
        found += [f"the column {table.name}.{name} is missing" for name in sorted(known - columns.keys())]
        found += [
            f"the column {table.name}.{name} needs a value that this version does not know"
            for name, column in columns.items()
            if name not in known and not column["nullable"] and column["default"] is None
        ]
    return found
