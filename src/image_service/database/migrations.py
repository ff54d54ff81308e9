"""Runs the migrations, for the program and for tests. Developers use the ``alembic`` command."""

from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(url: str, revision: str = "head") -> None:
    """Upgrade the database at ``url`` to a revision. Concurrent upgrades wait for each other.

    A schema that a later version has migrated stays as it is, if this version can serve it. Blocking, and not callable
    inside a running event loop: use a thread there.

    Raises:
        StartError: a later version has migrated the schema, and this version cannot serve it.
    """
    config = alembic_config(url)
    config.attributes["accept_newer"] = True
    command.upgrade(config, revision)


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
