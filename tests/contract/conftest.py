"""What the tests of the database share."""

from collections.abc import AsyncIterator

import pytest

from image_service.database import Database
from tests.support.fakes import PATIENT


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, time_limit=PATIENT)
    yield database
    await database.close()
