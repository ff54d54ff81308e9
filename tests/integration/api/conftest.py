"""The API, once on SQLite and once on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.api import Api, api_on


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(database_url, tmp_path) as api:
        yield api


@pytest.fixture
async def sqlite_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """For what has nothing to do with the database."""
    async with api_on(sqlite_url, tmp_path) as api:
        yield api
