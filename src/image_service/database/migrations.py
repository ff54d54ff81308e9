"""Applying the migrations, for the program and for tests; people use ``alembic`` itself."""

from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at ``url`` to a revision. Several at once wait for each other.

    Blocking, and not callable inside a running event loop: use a thread there.
    """
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database at ``url`` back to a revision. Blocking, like ``upgrade``."""
    command.downgrade(_config(url), revision)


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    config.attributes["url"] = url
    return config


def _scripts() -> Path:
    """The migration scripts: inside an installed package, or at the root of a checkout."""
    package = Path(str(files("image_service")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"
