"""Runs the migrations, for the program and for tests. Developers use the ``alembic`` command."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from image_service.errors import StartError

LOCK_TIMEOUT: Final = 60
"""Seconds. While a migration waits for the lock of a table, all other statements on it wait behind it."""
_LOCK_NOT_AVAILABLE: Final = "55P03"


def upgrade(url: str, revision: str = "head", *, lock_timeout: int = LOCK_TIMEOUT) -> None:
    """Upgrade the database at ``url`` to a revision. Concurrent upgrades wait for each other.

    Blocking, and not callable inside a running event loop: use a thread there.

    Args:
        url: A SQLAlchemy URL with the asyncpg or the aiosqlite driver.
        revision: The revision, or ``head``.
        lock_timeout: Seconds to wait for any lock, on PostgreSQL.

    Raises:
        StartError: another session held a lock for longer.
    """
    config = alembic_config(url)
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


def _scripts() -> Path:
    """The folder of the migration scripts: inside an installed package, or at the root of a checkout."""
    package = Path(str(files("image_service")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"
