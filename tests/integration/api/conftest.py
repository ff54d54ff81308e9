"""The API, once on SQLite and once on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.api import Api, api_on
from harness.pace import slowness


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(database_url, tmp_path) as api:
        yield api


@pytest.fixture
async def sqlite_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API on SQLite only, for tests that do not depend on the database."""
    async with api_on(sqlite_url, tmp_path) as api:
        yield api


@pytest.fixture
async def small_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API on SQLite with low limits: small files, few pixels, a short idle timeout."""
    async with api_on(
        sqlite_url, tmp_path, max_file_size=20_000, max_pixels=10_000, upload_idle_timeout=0.4 * slowness()
    ) as api:
        yield api
