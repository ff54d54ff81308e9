"""Fixtures of the database tests."""

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest

from harness.fakes import LONG_TIMEOUT
from harness.servers import PgBouncerServer, new_folder
from image_service.database import Database


@pytest.fixture(scope="session")
def pgbouncer(postgres_url: str) -> Iterator[PgBouncerServer]:
    """PgBouncer in front of the run's PostgreSQL."""
    with PgBouncerServer(new_folder(), postgres_url, connections=20) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, migrated database on SQLite, on PostgreSQL, and on PostgreSQL behind PgBouncer."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_database_url")
    if request.param == "pgbouncer":
        pooler: PgBouncerServer = request.getfixturevalue("pgbouncer")
        return pooler.url_of(urlsplit(url).path.removeprefix("/"))
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


@pytest.fixture
async def postgresql(postgres_database_url: str) -> AsyncIterator[Database]:
    """A new, migrated database on PostgreSQL only."""
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()
