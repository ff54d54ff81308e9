"""The database: sessions, migrations, and every query of the program."""

from image_service.database.session import Database, Repositories

__all__ = ["Database", "Repositories"]
