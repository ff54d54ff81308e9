"""The database: connections, migrations, and every query of the program."""

from image_service.database.repositories import Repositories, SingleStatements
from image_service.database.session import Database

__all__ = ["Database", "Repositories", "SingleStatements"]
