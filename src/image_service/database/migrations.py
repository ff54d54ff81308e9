"""Runs the migrations, for the program and for tests. Developers use the ``alembic`` command."""

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from image_service.errors import StartError

LOCK_TIMEOUT: Final = 60
"""Seconds. While a migration waits for the lock of a table, all other statements on it wait behind it."""
_LOCK_NOT_AVAILABLE: Final = "55P03"
_PRIMARY_CODE: Final = 0xFF
"""The part of SQLite's error codes that names the class."""


def upgrade(url: str, revision: str = "head", *, lock_timeout: int = LOCK_TIMEOUT) -> None:
    """Upgrade the database at ``url`` to a revision. Concurrent upgrades wait for each other.

    A schema that a later version has migrated stays as it is, if this version can serve it. Blocking, and not callable
    inside a running event loop: use a thread there.

    Args:
        url: A SQLAlchemy URL with the asyncpg or the aiosqlite driver.
        revision: The revision, or ``head``.
        lock_timeout: Seconds to wait for any lock, on PostgreSQL.

    Raises:
        StartError: another session held a lock for longer, a SQLite file is read-only, or a later version has migrated
            the schema, and this version cannot serve it.
    """
    _check_writable(url)
    config = alembic_config(url)
    config.attributes["accept_newer"] = True
    config.attributes["lock_timeout"] = lock_timeout
    try:
        command.upgrade(config, revision)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise StartError(
            f"The database cannot be migrated: another session has held a lock that this needs for {lock_timeout} s. "
            "Wait until that ends, or end it (the log names it), and migrate again; "
            "`image-service migrate --lock-timeout` waits for longer."
        ) from error


def downgrade(url: str, revision: str = "base") -> None:
    """Downgrade the database at ``url`` to a revision. Blocking, like ``upgrade``."""
    command.downgrade(alembic_config(url), revision)


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for the database at ``url``."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    config.attributes["url"] = url
    return config


def _check_writable(url: str) -> None:
    """Check that a SQLite file can be written to, which a migration that changes nothing would not notice."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not Path(parsed.database).exists():
        return
    with closing(sqlite3.connect(parsed.database, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA user_version = 1")  # which nothing reads, and which is rolled back
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_READONLY:
                raise StartError(
                    f"The database file {parsed.database} is read-only. Let this account write to it and to its "
                    "folder, or mount it writable."
                ) from error


def _scripts() -> Path:
    """The folder of the migration scripts: inside an installed package, or at the root of a checkout."""
    package = Path(str(files("image_service")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"
