"""Transactions and single statements, on SQLite and PostgreSQL."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from harness.fakes import LONG_TIMEOUT
from harness.rows import (
    claimed,
    complete,
    done,
    in_transaction,
    queued,
    recorded,
    rendered,
    reprocess,
    row,
    status_of,
    thumbnail,
    upload,
)
from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable


async def test_transaction_that_raises_is_rolled_back(database: Database) -> None:
    original = upload()

    async def record_and_fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
            assert await repositories.images.get(original.id) is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await record_and_fail()
    assert await in_transaction(database, lambda r: r.images.get(original.id)) is None


async def test_uncommitted_changes_are_invisible_to_others(database: Database) -> None:
    original = upload()
    async with database.transaction() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
        assert await in_transaction(database, lambda r: r.images.get(original.id)) is None
    assert await in_transaction(database, lambda r: r.images.get(original.id)) is not None


async def test_statement_is_committed_at_once_or_at_the_end_of_its_block(database: Database) -> None:
    original = upload()
    async with database.statement() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
        seen = await in_transaction(database, lambda r: r.images.get(original.id)) is not None
    assert seen == database.commits_at_once
    assert await in_transaction(database, lambda r: r.images.get(original.id)) is not None


async def test_statement_on_postgresql_sends_no_begin_and_commit(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    sent: list[str] = []
    for begin in (database.transaction, database.statement):
        async with begin() as repositories:
            raw = await repositories.connection.get_raw_connection()
            connection = raw.driver_connection
            assert connection is not None
            connection.add_query_logger(note := lambda record: sent.append(record.query.split()[0]))
            await repositories.images.add(upload(), lane=Lane.NORMAL, due_in=15)
        connection.remove_query_logger(note)
        sent.append("end")
    assert sent == ["BEGIN", "COMMIT;", "end", "end"]
    await database.close()


async def test_transactions_and_statements_share_one_connection(database_url: str) -> None:
    database = Database(database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    kept, lost = upload(), upload()

    async def record_and_fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(lost, lane=Lane.NORMAL, due_in=15)
            raise ZeroDivisionError

    for _ in range(2):
        async with database.statement() as repositories:
            await repositories.images.add(kept, lane=Lane.NORMAL, due_in=15)
        with pytest.raises(ZeroDivisionError):
            await record_and_fail()
    async with database.statement() as repositories:
        assert await repositories.images.existing([kept.id, lost.id]) == {kept.id}
    await database.close()


async def test_failed_statement_changes_nothing(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    twice = rendered(thumbnail(claim), thumbnail(claim))

    async def fail() -> None:
        async with database.statement() as repositories:
            await repositories.claims.complete(claim, twice)

    with pytest.raises(IntegrityError):
        await fail()
    assert await status_of(database, claim.image_id) is Status.PROCESSING
    assert await complete(database, claim)


async def test_statement_offers_single_statements_only(postgresql: Database) -> None:
    """mypy refuses them, too: it reports each ``type: ignore`` that has become unnecessary."""
    async with postgresql.statement() as repositories:
        refused: list[Callable[[], object]] = [
            lambda: repositories.images.remove,  # type: ignore[attr-defined]
            lambda: repositories.images.remove_originals,  # type: ignore[attr-defined]
            lambda: repositories.scheduling.postpone,  # type: ignore[attr-defined]
            lambda: repositories.catalogue.newest,  # type: ignore[attr-defined]
            lambda: repositories.catalogue.oldest,  # type: ignore[attr-defined]
        ]
        for query in refused:
            with pytest.raises(AttributeError):
                query()


async def test_statement_does_not_replace_thumbnails(database: Database) -> None:
    image_id = await done(database)
    await reprocess(database, image_id)
    claim = await claimed(database, image_id)
    before = await row(database, image_id)

    async def complete_in_statement() -> None:
        async with database.statement() as repositories:
            await repositories.claims.complete(claim, rendered(thumbnail(claim)))

    with pytest.raises(ValueError, match="takes a transaction"):
        await complete_in_statement()
    assert await row(database, image_id) == before
    assert await complete(database, claim)


async def test_statement_that_times_out_on_a_lock_is_cancelled_on_the_server(
    database: Database, database_url: str
) -> None:
    """Otherwise it would claim the image later, with no worker to process it, until the lease expires."""
    image_id = await recorded(database)
    waiting = Database(database_url, time_limit=0.3)

    async def claim_a_locked_row() -> None:
        async with waiting.statement() as repositories:
            await repositories.claims.claim(image_id, lease=60)

    async with database.transaction() as repositories:
        assert await repositories.scheduling.mark_queued(image_id, due_in=60)
        with pytest.raises(DatabaseUnavailable):
            await claim_a_locked_row()
    assert (await claimed(database, image_id)).attempt == 1
    await waiting.close()


async def test_sqlite_commits_are_durable(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    async with database.transaction() as repositories:
        connection = repositories.connection
        settings = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    await database.close()
