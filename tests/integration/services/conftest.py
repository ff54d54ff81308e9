"""Harness fixtures: ``env`` runs a test on both databases, ``sqlite_env`` on SQLite only."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.service_harness import ServiceHarness


@pytest.fixture
async def env(database_url: str, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    async with ServiceHarness.on(database_url, tmp_path / "storage") as env:
        yield env


@pytest.fixture
async def sqlite_env(sqlite_url: str, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    async with ServiceHarness.on(sqlite_url, tmp_path / "storage") as env:
        yield env
