"""TLS to a real PostgreSQL and a real RabbitMQ, as the URLs in the settings ask for it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import uvloop
from sqlalchemy import text

from harness.broker import publish, started
from harness.certificates import Authority, ClientFiles
from harness.servers import PostgresServer, RabbitMQServer, new_folder
from image_service.config import load_settings
from image_service.database import Database
from image_service.database.engine import create_engine
from image_service.database.migrations import upgrade
from image_service.errors import DatabaseUnavailable
from image_service.queue.rabbitmq import RabbitMQDeadLetters
from image_service.queue.rabbitmq.connection import open_connection, reason_of

Url = Callable[..., str]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a coroutine on the event loop of the program, which has its own TLS."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run
        # The servers, set up later, have ended before, and with them all connections: let the loop see that.
        runner.run(asyncio.sleep(0.1))


@pytest.fixture(scope="module")
def authority(run: Run) -> Authority:  # noqa: ARG001 - the servers need it, and so end before the loop
    return Authority()


@pytest.fixture(scope="module")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ClientFiles:
    return authority.client("app", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def tls_database(authority: Authority) -> Iterator[Url]:
    """The URL of a database on a server whose certificate is for ``localhost``, as the settings make it."""
    with PostgresServer(new_folder(), fsync=False, tls=authority.server("localhost")) as server:
        server.create_database("secured")

        def url(name: str = "postgres", host: str = "localhost", **parameters: object) -> str:
            given = f"postgres://app@{host}:{server.port}/{name}?{urlencode(parameters)}"
            return load_settings(database_url=given.removesuffix("?")).database_url.get_secret_value()

        yield url


@pytest.fixture(scope="module")
def tls_broker(authority: Authority) -> Iterator[Url]:
    """The URL of a broker whose certificate is for ``localhost``, and which demands one of its clients."""
    with RabbitMQServer(new_folder(), tls=authority.server("localhost")) as server:

        def url(host: str = "localhost", **parameters: object) -> str:
            given = f"amqps://guest:guest@{host}:{server.tls_port}/?{urlencode(parameters)}"
            return load_settings(rabbitmq_url=given.removesuffix("?")).rabbitmq_url.get_secret_value()

        yield url


async def session(url: str) -> tuple[Any, ...]:
    """Returns whether a new session is encrypted, with its name and its memory for sorting."""
    engine = create_engine(url, time_limit=10.0, pool_size=1, check_idle_after=1.0)
    query = (
        "SELECT ssl, current_setting('application_name'), current_setting('work_mem') "
        "FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    try:
        async with engine.connect() as connection:
            return tuple((await connection.execute(text(query))).one())
    finally:
        await engine.dispose()


async def unavailable(url: str) -> str:
    """Returns why the database is unavailable."""
    database = Database(url, time_limit=10.0)
    try:
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.probe()
    finally:
        await database.close()
    return str(refused.value.__cause__)


def test_postgresql_is_connected_to_as_sslmode_says(run: Run, tls_database: Url, files: ClientFiles) -> None:
    ca = files.authority
    for encrypted, url in (
        (False, tls_database(sslmode="disable")),
        (True, tls_database()),
        (True, tls_database(ssl="true")),
        (True, tls_database(sslmode="prefer", channel_binding="prefer")),
        (True, tls_database(sslmode="require", channel_binding="require", connect_timeout=10, gssencmode="disable")),
        (True, tls_database(sslmode="require", sslrootcert=ca, host="127.0.0.1")),
        (True, tls_database(sslmode="verify-ca", sslrootcert=ca, host="127.0.0.1")),
        (True, tls_database(sslmode="verify-full", sslrootcert=ca, target_session_attrs="read-write")),
    ):
        assert run(session(url)) == (encrypted, "image-service", "4MB"), url
    named = tls_database(sslmode="require", application_name="images", options="-c work_mem=5MB")
    assert run(session(named)) == (True, "images", "5MB")


def test_postgresql_is_unavailable_if_its_certificate_or_its_name_is_not_the_expected_one(
    run: Run, tls_database: Url, files: ClientFiles
) -> None:
    for url in (
        tls_database(sslmode="verify-full", sslrootcert=files.authority, host="127.0.0.1"),
        tls_database(sslmode="verify-full", sslrootcert=files.other_authority),
        tls_database(sslmode="verify-full"),  # the authorities that the system trusts
        tls_database(sslmode="verify-full", sslrootcert="system"),
        tls_database(sslmode="verify-ca", sslrootcert=files.other_authority),
        tls_database(sslmode="require", sslrootcert=files.other_authority),
    ):
        assert "certificate verify failed" in run(unavailable(url)), url


def test_postgresql_accepts_a_client_certificate_in_migrations_too(
    run: Run, tls_database: Url, files: ClientFiles
) -> None:
    verified = {"sslmode": "verify-full", "sslrootcert": files.authority}
    assert "requires a valid client certificate" in run(unavailable(tls_database("secured", **verified)))
    url = tls_database("secured", **verified, sslcert=files.certificate, sslkey=files.key)
    upgrade(url)

    async def probe() -> None:
        opened = Database(url, time_limit=10.0)
        await opened.probe()
        await opened.close()

    run(probe())


def test_rabbitmq_accepts_a_client_certificate(run: Run, tls_broker: Url, files: ClientFiles) -> None:
    client = {"certfile": files.certificate, "keyfile": files.key}

    async def use(url: str) -> None:
        async with started(url, "tls") as queue:
            await publish(queue)  # and wait for the confirmation
        assert await RabbitMQDeadLetters(url, "tls").list(10) == []

    run(use(tls_broker(cacertfile=files.authority, verify="verify_peer", connection_timeout=10_000, **client)))
    run(use(tls_broker(host="127.0.0.1", verify="verify_none", **client)))


def test_rabbitmq_is_unavailable_if_a_certificate_or_a_name_is_not_the_expected_one(
    run: Run, tls_broker: Url, files: ClientFiles
) -> None:
    client = {"certfile": files.certificate, "keyfile": files.key}

    async def reason(url: str) -> str:
        try:
            await open_connection(url, "test")
        except Exception as error:  # noqa: BLE001 - whatever it is, its text is what the log says
            return reason_of(error)
        return "connected"

    for problem, url in (
        ("certificate verify failed", tls_broker(cacertfile=files.other_authority, **client)),
        ("certificate verify failed", tls_broker(**client)),  # the authorities that the system trusts
        ("certificate verify failed", tls_broker(host="127.0.0.1", cacertfile=files.authority, **client)),
        ("", tls_broker(cacertfile=files.authority)),  # TLS 1.3: refused after the handshake, in one of several ways
    ):
        told = run(reason(url))
        assert problem in told, url
        assert told != "connected"
