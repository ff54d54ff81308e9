"""Every query of the program finds its rows through the intended index, whatever the table's size."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import text

from harness.databases import create_database, drop_database
from harness.plans import QUERIES, Explainer, Query, Subjects, explainer, fill, superuser

IMAGES = 20_000


@pytest.fixture(scope="module")
def filled(postgres_url: str, postgres_template: str) -> Iterator[tuple[str, Subjects]]:
    """A database filled with images of every kind, and examples of them."""
    name = f"plans_{uuid4().hex}"
    url = create_database(postgres_url, name, postgres_template)

    async def fill_database() -> Subjects:
        async with superuser(url) as connection:
            return await fill(connection, IMAGES)

    yield url, asyncio.run(fill_database())
    drop_database(postgres_url, name)


@pytest.fixture
async def server(filled: tuple[str, Subjects]) -> AsyncIterator[Explainer]:
    async with explainer(*filled) as server:
        yield server


@pytest.mark.parametrize("query", [pytest.param(query, id=query.name) for query in QUERIES])
async def test_query_finds_its_rows_through_its_index(server: Explainer, query: Query) -> None:
    plans = await server.plans(query)
    assert plans
    assert query.complaint(plans) is None
    assert sum(plan.examined for plan in plans) <= query.examines


async def test_missing_index_is_detected(filled: tuple[str, Subjects]) -> None:
    async with superuser(filled[0]) as connection:
        await connection.execute(text("ALTER INDEX ix_images_unclaimed RENAME TO another"))
        try:
            async with explainer(*filled) as server:
                (query,) = (query for query in QUERIES if query.name == "unclaimed")
                assert query.complaint(await server.plans(query)) == "does not use ix_images_unclaimed"
        finally:
            await connection.execute(text("ALTER INDEX another RENAME TO ix_images_unclaimed"))


async def test_sequential_scan_is_detected(server: Explainer) -> None:
    unindexed = text("SELECT id FROM images WHERE width = 1")
    query = Query(name="by width", run=lambda r, _: r.connection.execute(unindexed), index="")
    (plan,) = plans = await server.plans(query)
    assert query.complaint(plans) == "scans the whole of {'images'}"
    assert plan.examined == IMAGES
