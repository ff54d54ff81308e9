"""Which errors of the database are an outage."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import TextClause, text, update
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InternalError
from structlog.testing import capture_logs

from harness.failover import end_sessions, make_read_only
from harness.fakes import LONG_TIMEOUT
from harness.processes import free_port
from harness.rows import (
    claimed,
    due,
    execute,
    recorded,
    row,
    try_claim,
)
from image_service.database import Database
from image_service.database.failures import Failure, classify, rejects_values
from image_service.errors import DatabaseUnavailable
from image_service.models import ImageRow

GENERIC_DETAIL = (DatabaseUnavailable.__doc__ or "").strip()
"""What a client reads: no instructions for the operator."""
SCHEMA_MISMATCH = ("error", "database schema does not match this version", "run: image-service migrate")


async def test_probe_of_a_migrated_database_succeeds(database: Database) -> None:
    await database.probe()
    await recorded(database)
    await database.probe()


async def test_missing_tables_are_an_outage_that_is_logged_once(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with capture_logs() as logs:
        for query in (database.probe, lambda: recorded(database), lambda: due(database)):
            with pytest.raises(DatabaseUnavailable) as caught:
                await query()
            assert caught.value.detail == GENERIC_DETAIL
    assert [(line["log_level"], line["event"], line["action"]) for line in logs] == [SCHEMA_MISMATCH]
    await database.close()


async def test_missing_column_is_an_outage_that_is_logged_once(database: Database) -> None:
    await execute(database, text("ALTER TABLE images RENAME COLUMN publishes TO published"))
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable) as caught:
                await due(database)
            assert caught.value.detail == GENERIC_DETAIL
    assert [(line["log_level"], line["event"], line["action"]) for line in logs] == [SCHEMA_MISMATCH]
    assert "publishes" in logs[0]["reason"]


async def test_lock_not_acquired_in_time_is_an_outage(database: Database, database_url: str) -> None:
    image_id = await recorded(database)
    waiting = Database(database_url, time_limit=0.3)
    async with database.transaction() as repositories:
        assert await repositories.claims.claim(image_id, lease=-1)
        with pytest.raises(DatabaseUnavailable):
            await try_claim(waiting, image_id)
    assert (await claimed(database, image_id)).attempt == 2
    await waiting.close()


async def test_query_over_the_time_limit_is_an_outage(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(DatabaseUnavailable):
        await execute(database, text("SELECT pg_sleep(60)"))
    assert asyncio.get_running_loop().time() - started < 30
    await database.probe()
    await database.close()


async def test_no_free_connection_in_time_is_an_outage(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=1, pool_size=1)
    sleepers = [execute(database, text("SELECT pg_sleep(60)")) for _ in range(4)]
    outcome = await asyncio.gather(*sleepers, return_exceptions=True)
    assert [type(result) for result in outcome] == [DatabaseUnavailable] * 4
    await database.probe()
    await database.close()


async def test_lost_connection_is_an_outage_and_the_next_one_works(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    with pytest.raises(DatabaseUnavailable):
        await execute(database, text("SELECT pg_terminate_backend(pg_backend_pid())"))
    await database.probe()
    await database.close()


async def test_lost_idle_connection_is_replaced(postgres_database_url: str) -> None:
    database, other = [Database(postgres_database_url, time_limit=LONG_TIMEOUT, check_idle_after=0) for _ in range(2)]
    await database.probe()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await execute(other, text(f"SELECT pg_terminate_backend(pid) {others}"))
    await database.probe()
    await database.close()
    await other.close()


OUTAGES = (
    *("08006", "0A000", "25006", "25P03", "40001", "40P01", "42501", "53100", "53300", "55000", "55P03"),
    *("57014", "57P01", "57P03", "58030", "P0001", "XX000", "ZZ999"),
)


async def test_errors_that_are_not_the_fault_of_a_statement_are_an_outage(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    for sqlstate in OUTAGES:
        with pytest.raises(DatabaseUnavailable):
            await execute(database, raising(sqlstate))
    await database.close()


async def test_connection_that_reported_an_outage_is_replaced(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    await execute(database, text("CREATE TEMPORARY TABLE of_this_session ()"))
    with pytest.raises(DatabaseUnavailable):
        await execute(database, raising("57P03"))
    with pytest.raises(DatabaseUnavailable) as caught:  # a missing table counts as an outage
        await execute(database, text("SELECT FROM of_this_session"))
    assert "does not exist" in str(caught.value.__cause__)
    await database.close()


def test_internal_error_of_the_driver_is_an_outage() -> None:
    reason = "cannot switch to state 12; another operation (2) is in progress"
    lost = AsyncAdapt_asyncpg_dbapi.InternalClientError(reason)  # type: ignore[no-untyped-call]  # it carries no types
    assert classify(InternalError("SELECT", {}, lost)) is Failure.OUTAGE


async def test_errors_of_a_statement_or_its_values_are_no_outage(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    for sqlstate, of_values in {"22021": True, "23514": True, "21000": False, "42601": False, "54000": False}.items():
        with pytest.raises(DBAPIError, match="on purpose") as caught:
            await execute(database, raising(sqlstate))
        assert rejects_values(caught.value) == of_values
    await database.close()


async def test_values_that_no_column_takes_are_no_outage(database: Database) -> None:
    image_id = await recorded(database)
    with pytest.raises(DBAPIError) as caught:
        await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(width=None))
    assert rejects_values(caught.value)


async def test_value_that_the_driver_cannot_send_is_no_outage(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    with pytest.raises(DBAPIError) as caught:
        await execute(database, update(ImageRow).values(width=2**70))
    assert rejects_values(caught.value)
    await database.close()


async def test_faulty_statement_is_no_outage(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        await execute(database, text("no statement"))
    assert classify(caught.value) is Failure.FAULT


def raising(sqlstate: str) -> TextClause:
    return text(f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{sqlstate}'; END $$")


async def test_after_a_failover_the_whole_pool_heals(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=4, check_idle_after=0)
    operator = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    await open_sessions(database, 2)
    await make_read_only(operator)
    await open_sessions(database, 4)  # two more, which are read-only
    await make_read_only(operator, read_only=False)
    assert await failures(database, of=8) == 1, "the first that failed took the other with it"
    await make_read_only(operator)
    await end_sessions(operator)
    for _ in range(5):
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.probe()
        assert caught.value.unchanged
        with pytest.raises(DatabaseUnavailable):
            await recorded(database)
        assert len(await due(database)) == 0, "reading goes on"
    await open_sessions(database, 4)
    await make_read_only(operator, read_only=False)
    assert await failures(database, of=8) == 1
    await database.close()
    await operator.close()


async def open_sessions(database: Database, count: int) -> None:
    """Open so many connections, which the pool keeps."""
    barrier = asyncio.Barrier(count)

    async def one() -> None:
        async with database.transaction():
            await barrier.wait()

    await asyncio.gather(*(one() for _ in range(count)))


async def failures(database: Database, of: int) -> int:
    """Write so many times; returns how often it failed."""
    failed = 0
    for _ in range(of):
        try:
            await recorded(database)
        except DatabaseUnavailable:
            failed += 1
    return failed


async def test_outage_tells_whether_something_may_have_changed(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    ended, undone = text("SELECT pg_terminate_backend(pg_backend_pid())"), raising("57014")
    for statement, unchanged in ((ended, False), (undone, True)):
        with pytest.raises(DatabaseUnavailable) as caught:
            async with database.statement() as repositories:
                await repositories.connection.execute(statement)
        assert caught.value.unchanged == unchanged
    with pytest.raises(DatabaseUnavailable) as caught:
        await execute(database, ended)
    assert caught.value.unchanged, "the connection was lost before the commit"
    await database.close()


async def test_read_only_file_under_sqlite_is_an_outage(sqlite_url: str) -> None:
    database = Database(sqlite_url, pool_size=1)
    await execute(database, text("PRAGMA query_only = ON"))
    assert await due(database) == []
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await database.close()


async def test_full_disk_under_sqlite_is_an_outage(sqlite_url: str) -> None:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    image_id = await recorded(database)
    full = update(ImageRow).where(ImageRow.id == image_id).values(error_detail="x" * 1_000_000)
    async with database.transaction() as repositories:
        await repositories.connection.execute(text("PRAGMA max_page_count = 1"))
    with pytest.raises(DatabaseUnavailable) as caught:
        await execute(database, full)
    assert "full" in str(caught.value.__cause__)
    assert (await row(database, image_id))["error_detail"] is None
    await database.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_missing_database_is_an_outage(postgres_url: str) -> None:
    database = Database(f"{postgres_url.rpartition('/')[0]}/no_such_database")
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await database.close()


async def test_refused_connection_is_an_outage_with_a_generic_detail() -> None:
    database = Database(f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/images")
    for query in (database.probe, lambda: recorded(database)):
        with pytest.raises(DatabaseUnavailable) as caught:
            await query()
        assert caught.value.detail == GENERIC_DETAIL
        assert caught.value.unchanged
    await database.close()


async def test_silent_server_is_an_outage(silent_port: int) -> None:
    database = Database(f"postgresql+asyncpg://app@127.0.0.1:{silent_port}/images", time_limit=0.3)
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await database.close()


async def test_missing_folder_under_sqlite_is_an_outage(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/missing/images.db")
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    (tmp_path / "missing").mkdir()
    with capture_logs() as logs, pytest.raises(DatabaseUnavailable):
        await database.probe()
    assert [line["action"] for line in logs] == ["run: image-service migrate"], "there is a new file without tables"
    await database.close()
