"""Reads image states directly from the database, which puts no load on the service's processes."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import NullPool, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from image_service.domain.status import Status
from image_service.models import ImageRow

_BATCH: Final = 500
_POLL_INTERVAL: Final = 0.05
_SHORT_POLL_INTERVAL: Final = 0.002
_WAL: Final = text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
_COMMITS: Final = text("SELECT sum(xact_commit) FROM pg_stat_database")


class Records:
    """The records of a database, PostgreSQL or SQLite."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._postgres = connection.dialect.name == "postgresql"

    async def unfinished(self) -> int:
        """Returns the number of images that are neither DONE nor ERROR."""
        return (await self._connection.execute(select(func.count()).where(ImageRow.due_at.is_not(None)))).scalar_one()

    async def until_finished(self, limit: float) -> None:
        """Return when all images are DONE or ERROR.

        Raises:
            TimeoutError: They are not within ``limit`` seconds.
        """
        async with asyncio.timeout(limit):
            while await self.unfinished():  # noqa: ASYNC110 — the database sends no notifications
                await asyncio.sleep(_POLL_INTERVAL)

    async def until_done(self, image_id: UUID, limit: float) -> None:
        """Return when this image is DONE, at most two milliseconds later.

        Raises:
            TimeoutError: It is not within ``limit`` seconds.
        """
        async with asyncio.timeout(limit):
            while await self.status(image_id) != Status.DONE:  # noqa: ASYNC110 — see above
                await asyncio.sleep(_SHORT_POLL_INTERVAL)

    async def status(self, image_id: UUID) -> Status:
        """Returns the status of an image."""
        return (await self._connection.execute(select(ImageRow.status).where(ImageRow.id == image_id))).scalar_one()

    async def finished(self, image_ids: Collection[UUID]) -> dict[UUID, float]:
        """Returns the time at which each image became DONE, by the clock of this machine.

        Raises:
            ValueError: An image is not DONE, or not recorded.
        """
        times: dict[UUID, float] = {}
        columns = select(ImageRow.id, ImageRow.status, ImageRow.finished_at)
        for batch in _batches(image_ids):
            for image_id, status, finished_at in await self._connection.execute(columns.where(ImageRow.id.in_(batch))):
                if status != Status.DONE or finished_at is None:
                    raise ValueError(f"image {image_id} is {status}, not DONE")
                times[image_id] = finished_at.timestamp()
        if len(times) != len(image_ids):
            raise ValueError(f"{len(image_ids) - len(times)} images are not recorded")
        return times

    async def log_bytes(self) -> int:
        """Returns the bytes of write-ahead log that PostgreSQL has written since its first start; 0 for SQLite."""
        return int((await self._connection.execute(_WAL)).scalar_one()) if self._postgres else 0

    async def commits(self) -> int:
        """Returns the transactions that PostgreSQL has committed; 0 for SQLite. PostgreSQL updates it once a second."""
        return int((await self._connection.execute(_COMMITS)).scalar_one()) if self._postgres else 0


@asynccontextmanager
async def records(url: str) -> AsyncIterator[Records]:
    """Opens a connection on which every statement is a transaction of its own."""
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield Records(connection)
    finally:
        await engine.dispose()


def _batches(image_ids: Collection[UUID]) -> Iterator[Sequence[UUID]]:
    left = iter(image_ids)
    while batch := list(islice(left, _BATCH)):
        yield batch
