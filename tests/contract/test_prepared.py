"""The statements that the driver executes itself are those that SQLAlchemy would send, and end the same way."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import bindparam, event, func, insert, select
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor
from sqlalchemy.exc import DBAPIError, IntegrityError

from harness.rows import claimed, done, finished, queued, recorded, rendered, thumbnail, upload
from image_service.database import Database
from image_service.database.failures import rejects_values
from image_service.database.prepared import Prepared
from image_service.database.repositories import Repositories
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable
from image_service.models import ImageRow, RemovalRow

Query = Callable[[Repositories], Awaitable[object]]


class Sent(list[tuple[str, tuple[object, ...]]]):
    """What was sent to the server since the last call of ``clear``."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()
    execute: Any = AsyncAdapt_asyncpg_cursor.execute

    def note(cursor: AsyncAdapt_asyncpg_cursor, operation: str, parameters: tuple[object, ...] = ()) -> None:
        if "SAVEPOINT" not in operation:
            sent.append((operation, tuple(parameters)))
        execute(cursor, operation, parameters)

    monkeypatch.setattr(AsyncAdapt_asyncpg_cursor, "execute", note)
    return sent


async def executed(database: Database, query: Query, *, listened_to: bool) -> tuple[object, int]:
    """Execute a query and undo it; returns its result, and how many statements SQLAlchemy executed."""
    by_sqlalchemy: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "SAVEPOINT" not in statement:
            by_sqlalchemy.append(statement)

    async with database.transaction() as repositories:
        connection = repositories.connection
        if listened_to:
            event.listen(connection.sync_connection, "before_cursor_execute", note)
        undone = await connection.begin_nested()
        result = await query(repositories)
        await undone.rollback()
    return result, len(by_sqlalchemy)


async def _add(_database: Database) -> Query:
    original = upload()
    return lambda r: r.images.add(original, lane=Lane.EXPRESS, due_in=7.5, idempotency_key="a key")


async def _mark_queued(database: Database) -> Query:
    image_id = await recorded(database)
    return lambda r: r.scheduling.mark_queued(image_id, due_in=7.5)


async def _claim(database: Database) -> Query:
    image_id = await queued(database)
    return lambda r: r.claims.claim(image_id, lease=7.5)


async def _claim_nothing(_database: Database) -> Query:
    image_id = uuid4()
    return lambda r: r.claims.claim(image_id, lease=7.5)


async def _complete(database: Database) -> Query:
    claim = await claimed(database, await queued(database))
    result = rendered(thumbnail(claim), thumbnail(claim, "300x300", 300))
    return lambda r: r.claims.complete(claim, result)


async def _complete_with_outputs_to_follow(database: Database) -> Query:
    claim = await claimed(database, await queued(database))
    result = rendered(thumbnail(claim), recipe=None, pending=("hero", "hero.webp"), left_out={"300x300": "0" * 16})
    return lambda r: r.claims.complete(claim, result)


async def _claim_outputs(database: Database) -> Query:
    image_id = await done(database)
    async with database.statement() as repositories:
        assert await repositories.outputs.mark_outputs_due([image_id])
    return lambda r: r.outputs.claim_outputs(image_id, lease=7.5)


async def _claim_no_outputs(database: Database) -> Query:
    image_id = await done(database)
    return lambda r: r.outputs.claim_outputs(image_id, lease=7.5)


async def _get(database: Database) -> Query:
    image_id = (await finished(database, Status.DONE)).image_id
    return lambda r: r.images.get(image_id)


async def _get_failed(database: Database) -> Query:
    image_id = (await finished(database, Status.ERROR)).image_id
    return lambda r: r.images.get(image_id)


async def _get_by_key(database: Database) -> Query:
    async with database.transaction() as repositories:
        await repositories.images.add(upload(), lane=Lane.NORMAL, due_in=60, idempotency_key="known")
    return lambda r: r.images.by_idempotency_key("known")


QUERIES = [
    _add,
    _mark_queued,
    _claim,
    _claim_nothing,
    _complete,
    _complete_with_outputs_to_follow,
    _claim_outputs,
    _claim_no_outputs,
    _get,
    _get_failed,
    _get_by_key,
]


@pytest.mark.parametrize("prepare", QUERIES)
async def test_driver_is_sent_the_same_and_answers_the_same(
    postgresql: Database, prepare: Callable[[Database], Awaitable[Query]], sent: Sent
) -> None:
    query = await prepare(postgresql)
    await postgresql.probe()  # connects
    sent.clear()
    result, by_sqlalchemy = await executed(postgresql, query, listened_to=True)
    (statement,) = sent
    assert by_sqlalchemy == 1
    sent.clear()
    assert await executed(postgresql, query, listened_to=False) == (result, 0)
    assert sent == [statement]


async def test_errors_are_those_of_sqlalchemy(postgresql: Database) -> None:
    twice = Prepared(insert(RemovalRow).values(key=bindparam("name"), due_at=func.now()))
    too_long = Prepared(select(ImageRow.id).where(ImageRow.attempt == bindparam("number")))
    async with postgresql.statement() as repositories:
        assert await twice.count(repositories.connection, {"name": "a"}) == 1
    with pytest.raises(IntegrityError, match="pk_removals"):
        async with postgresql.statement() as repositories:
            await twice.count(repositories.connection, {"name": "a"})
    with pytest.raises(DBAPIError) as caught:
        async with postgresql.statement() as repositories:
            await too_long.rows(repositories.connection, {"number": 2**70})
    assert rejects_values(caught.value)
    async with postgresql.statement() as repositories:
        assert await twice.count(repositories.connection, {"name": "b"}) == 1


async def test_cancelled_statement_takes_its_connection_out_of_the_pool(postgres_database_url: str) -> None:
    # Long enough to connect on a busy machine.
    database = Database(postgres_database_url, time_limit=2.0, pool_size=1)
    waits = Prepared(select(func.pg_sleep(bindparam("seconds")).label("slept")))
    process = Prepared(select(func.pg_backend_pid().label("process")))
    async with database.statement() as repositories:
        before = (await process.rows(repositories.connection, {}))[0]
    with pytest.raises(DatabaseUnavailable):
        async with database.statement() as repositories:
            await waits.rows(repositories.connection, {"seconds": 60.0})
    async with database.statement() as repositories:
        assert (await process.rows(repositories.connection, {}))[0] != before
    await database.close()


async def test_values_that_sqlalchemy_would_add_are_refused(postgresql: Database) -> None:
    lacks_its_defaults = Prepared(insert(ImageRow))
    with pytest.raises(ValueError, match="attempt"):
        async with postgresql.statement() as repositories:
            await lacks_its_defaults.count(repositories.connection, {"id": uuid4()})
