"""Concurrent writers to one SQLite database are served in order."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from sqlalchemy import event

from harness.fakes import LONG_TIMEOUT
from harness.pace import slowness
from harness.rows import add, recorded, status_of, upload
from image_service.database import Database
from image_service.domain.lane import Lane

WRITERS = 8
ROUNDS = 25


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


async def test_no_writer_starves(database: Database) -> None:
    written: list[int] = []

    async def write(writer: int) -> None:
        for _ in range(ROUNDS):
            await recorded(database)
            written.append(writer)

    await asyncio.gather(*map(write, range(WRITERS)))
    # Without ``serialize_writes``, some writers are overtaken a hundred times.
    assert max(longest_wait(written, writer) for writer in range(WRITERS)) <= 5 * WRITERS


def longest_wait(written: list[int], writer: int) -> int:
    """The most writes of others between two writes of one writer."""
    own = [-1, *(at for at, who in enumerate(written) if who == writer)]
    return max(later - earlier for earlier, later in pairwise(own))


async def test_failed_or_timed_out_writer_does_not_block_the_others(database: Database) -> None:
    original = upload()

    async def fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(recorded(database), 0.2)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    await add(database, original)
    assert await status_of(database, original.id) == "NEW"


async def test_commit_slower_than_the_time_limit_is_no_outage(sqlite_url: str) -> None:
    limit = 0.5 * slowness()
    database = Database(sqlite_url, time_limit=limit)
    event.listen(database.engine, "commit", lambda _: time.sleep(1.2 * limit), once=True)
    original = upload()
    await add(database, original)  # raises DatabaseUnavailable if the commit is given up, although it takes effect
    assert await status_of(database, original.id) == "NEW"
    await database.close()
