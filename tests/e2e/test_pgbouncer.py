"""API and workers behind PgBouncer in transaction pooling mode."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from harness.fakes import LONG_TIMEOUT
from harness.images import encoded, gradient
from harness.rows import upload as an_upload
from harness.servers import PgBouncerServer, new_folder
from harness.service import FAST_SETTINGS, Api, Worker, client, finished, upload_all
from image_service.database import Database, Repositories

CONNECTIONS = 3
"""Far fewer than the processes would open."""
MANY = 100


@pytest.fixture(scope="module")
def pgbouncer(postgres_url: str) -> Iterator[PgBouncerServer]:
    with PgBouncerServer(new_folder(), postgres_url, connections=CONNECTIONS) as server:
        yield server


@pytest.fixture
def url(pgbouncer: PgBouncerServer, postgres_database_url: str) -> str:
    return pgbouncer.url_of(urlsplit(postgres_database_url).path.removeprefix("/"))


async def backend(repositories: Repositories) -> int:
    """Return the pid of the server process that runs the transaction."""
    answer = await repositories.connection.execute(text("SELECT pg_backend_pid()"))
    return int(answer.scalar_one())


async def test_transactions_of_one_connection_may_run_on_different_backends(url: str) -> None:
    database, other = (Database(url, time_limit=LONG_TIMEOUT, pool_size=1) for _ in range(2))
    async with database.transaction() as repositories:
        before = await backend(repositories)
        assert await repositories.images.get(an_upload().id) is None
    async with other.transaction() as taking:
        assert await backend(taking) == before
        async with database.transaction() as repositories:
            assert await backend(repositories) != before
            assert await repositories.images.get(an_upload().id) is None
    await database.close()
    await other.close()


async def test_no_prepared_statement_is_left_on_a_backend(url: str) -> None:
    database = Database(url)
    async with database.transaction() as repositories:
        assert await repositories.images.get(an_upload().id) is None
        left = await repositories.connection.execute(text("SELECT count(*) FROM pg_prepared_statements"))
        assert left.scalar_one() == 0
    await database.close()


async def test_transactions_have_server_side_timeouts(url: str) -> None:
    database = Database(url)
    async with database.transaction() as repositories:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            shown = await repositories.connection.execute(text(f"SHOW {name}"))
            assert shown.scalar_one() == "10s"
    await database.close()


async def test_all_uploads_through_few_connections_become_done(
    url: str, rabbitmq_virtual_host: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": url,
        "RABBITMQ_URL": rabbitmq_virtual_host,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **FAST_SETTINGS,
    }
    with ExitStack() as running:
        api = running.enter_context(Api(tmp_path, env))
        workers = [running.enter_context(Worker(tmp_path, env, f"worker-{number}")) for number in range(2)]
        async with client(api.url) as http:
            ids = await upload_all(http, [encoded(gradient(64, 48), "JPEG")] * MANY, at_once=16)
            images = await finished(http, ids, timeout=60)
        assert [image["status"] for image in images] == ["DONE"] * MANY
        assert "prepared statement" not in api.log + "".join(worker.log for worker in workers)
