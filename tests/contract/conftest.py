"""Fixtures of the contract tests."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.fakes import LONG_TIMEOUT
from harness.servers import PgBouncerServer, new_folder
from image_service.database import Database
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from tests.contract.exploits import Exploit, install
from tests.contract.rendering import Give, MakePool


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


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    pools: list[RenderPool] = []

    def make_pool(slots: int = 1, **limits: Any) -> RenderPool:  # noqa: ANN401  (the limits' own fields)
        pools.append(RenderPool(slots, RenderLimits(**limits)))
        return pools[-1]

    yield make_pool
    for pool in pools:
        await pool.close()
    gc.collect()


@pytest.fixture
def give(tmp_path: Path) -> Give:
    """Return a source file with the content, and a folder for its thumbnails."""
    given = iter(range(1000))

    def give(content: bytes) -> tuple[Path, Path]:
        folder = tmp_path / f"job {next(given)} \N{LATIN SMALL LETTER E WITH ACUTE}\n"
        folder.mkdir()
        (folder / "source").write_bytes(content)
        return folder / "source", folder

    return give


@pytest.fixture
def exploit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exploit:
    """Make decoder processes execute their input, after an optional preparation."""

    def exploit(preparation: str = "") -> None:
        install(tmp_path / "site", monkeypatch, preparation)

    return exploit
