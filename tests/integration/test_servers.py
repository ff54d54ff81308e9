"""The private test servers survive kills and restarts."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from harness import amqp
from harness.processes import ServerError
from harness.replication import ReplicatedPostgres
from harness.servers import PostgresServer, RabbitMQServer
from harness.waiting import eventually


async def test_postgres_keeps_port_and_data_after_a_kill(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database("before")
    await _execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    own_postgres.kill()
    with pytest.raises(OSError, match=r"refused|failed"):
        await _execute(url, "SELECT 1")
    own_postgres.start()
    copy = own_postgres.create_database("after", template="before")
    assert await _execute(copy, "SELECT answer FROM kept") == 42
    own_postgres.restart()
    own_postgres.drop_database("before")
    assert await _execute(copy, "SELECT answer FROM kept") == 42


def test_promoted_standby_has_every_commit_and_gets_a_standby_itself() -> None:
    pair = ReplicatedPostgres(fsync=False)
    try:
        pair.start()
        pair.primary.ask("CREATE TABLE kept AS SELECT 1 AS answer")
        pair.kill_primary()
        pair.start_primary()
        pair.primary.ask("INSERT INTO kept VALUES (2)")
        assert pair.standby.ask("SELECT max(answer) FROM kept") == 2
        before = pair.url
        pair.kill_primary()
        pair.promote_standby()
        pair.primary.ask("INSERT INTO kept VALUES (3)")  # alone, it does not wait
        pair.add_standby()
        assert pair.url != before
        pair.kill_standby()
        pair.release_commits()
        pair.primary.ask("INSERT INTO kept VALUES (4)")
        pair.add_standby()
        assert pair.standby.ask("SELECT count(*) FROM kept") == 4
    finally:
        pair.close()


async def test_rabbitmq_keeps_its_port_after_a_kill(own_rabbitmq: RabbitMQServer) -> None:
    url = own_rabbitmq.url
    assert amqp.cluster_name(url)
    own_rabbitmq.kill()
    assert amqp.cluster_name(url) is None
    starting = asyncio.create_task(asyncio.to_thread(own_rabbitmq.start))
    assert await eventually(lambda: amqp.cluster_name(url), timeout=60)
    await starting
    assert own_rabbitmq.url == url


def test_fixtures_name_running_servers(postgres_database_url: str, rabbitmq_url: str) -> None:
    assert asyncio.run(_execute(postgres_database_url, "SELECT count(*) FROM images")) == 0
    assert amqp.cluster_name(rabbitmq_url)


async def test_every_database_is_new_and_migrated(database_url: str) -> None:
    assert await _execute(database_url, "SELECT count(*) FROM images") == 0


def test_missing_server_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.servers._rabbitmq_program", tmp_path.joinpath)
    server = RabbitMQServer(tmp_path / "rabbitmq")
    with pytest.raises(ServerError, match=r"(?s)RabbitMQ did not start: .*make test.*TEST_RABBITMQ_URL"):
        server.start()
    server.close()
    assert not list(tmp_path.iterdir())


async def test_eventually_says_what_it_waited_for() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)not true within .*never_true.*last result was 0"):
        await eventually(lambda: never_true(), timeout=0.05)  # noqa: PLW0108  (its source names it)


def never_true() -> int:
    return 0


async def _execute(url: str, statement: str) -> object:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()
