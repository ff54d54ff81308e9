"""A stage for every test: once on SQLite and once on PostgreSQL where the database has a part in the play."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.stage import Stage


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage.on(database_url, tmp_path / "storage") as stage:
        yield stage


@pytest.fixture
async def sqlite_stage(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage.on(sqlite_url, tmp_path / "storage") as stage:
        yield stage
