"""Binds the storage to the database, so that a process notices a storage that is not the service's."""

from typing import Final

from image_service.database import Database
from image_service.errors import ForeignStorage
from image_service.ports import Storage

_UNUSED: Final = (
    "No API process has used this storage with this database yet. If one runs, it uses another storage: "
    "compare STORAGE_PATH, STORAGE_URL and the mounted volumes of both processes."
)


class StorageBinding:
    """The record, in the storage, of the database that its files belong to.

    The API makes it, as it stores the originals. Everything else only compares it: a worker that made one in an empty
    volume of its own would take every original for missing.
    """

    def __init__(self, *, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def establish(self) -> None:
        """Record the database, unless one is recorded, and check that it is this one.

        Raises:
            Outage: the storage or the database is unavailable.
            ForeignStorage: the storage holds another database's files.
        """
        own = await self._own()
        if await self._storage.bind_to_database(own) != own:
            raise ForeignStorage

    async def verify(self) -> None:
        """Check that this database is recorded.

        Raises:
            Outage: the storage or the database is unavailable.
            ForeignStorage: none is recorded, or another.
        """
        own = await self._own()
        recorded = await self._storage.bound_database()
        if recorded is None:
            raise ForeignStorage(_UNUSED)
        if recorded != own:
            raise ForeignStorage

    async def _own(self) -> str:
        async with self._database.statement() as repositories:
            return str(await repositories.catalogue.identity())
