"""The migration of the database before the service runs."""

from image_service.config import Settings
from image_service.database.migrations import LOCK_TIMEOUT, upgrade
from image_service.errors import StartError


def run_migrations(settings: Settings, *, lock_timeout: int = LOCK_TIMEOUT) -> None:
    """Migrate the database to the schema of this version; wait for locks for some seconds.

    Raises:
        StartError: the database cannot be reached or migrated, or its schema is too new for this version.
    """
    try:
        upgrade(settings.database_url.get_secret_value(), lock_timeout=lock_timeout)
    except StartError:
        raise
    except Exception as error:
        # From the driver, SQLAlchemy or Alembic; the first line of the message is the useful one.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StartError(
            f"The database cannot be migrated: {reason}. Check that it runs and that DATABASE_URL is right."
        ) from error
