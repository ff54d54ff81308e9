"""Real databases, brokers and storages for the tests. Nothing is skipped: where a server is missing, tests fail.

TEST_DATABASE_URL, TEST_RABBITMQ_URL, TEST_S3_URL, TEST_GCS_URL and TEST_AZURE_URL name servers to use; without them the
run starts its own.
"""

import asyncio
import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
import structlog
from _pytest.nodeid import NodeId

from harness import azure, gcs, s3
from harness.broker import purge_queues
from harness.databases import Databases, create_database, drop_database
from harness.processes import SOURCE, ServerError
from harness.servers import PostgresServer, RabbitMQServer, new_folder
from harness.shared import SharedServers, shared_url
from image_service.database.migrations import upgrade

EXPENSIVE_FIXTURES = {"own_postgres", "own_rabbitmq", "own_s3", "tls_database", "tls_broker", "filled", "chromium"}
"""Private servers, a filled database and a browser: the tests of a module that use one run in one worker process."""
ONE_FOR_ALL = ("own_rabbitmq", "chromium")
"""Those that the tests of all modules run in one worker process for."""
BUCKET = "tests"
TESTS = Path(__file__).parent
STARTS_PROCESSES = {"e2e", "faults"}
"""Folders of tests that are busy with starting the service's processes."""
UNMEASURED = {"browser", "faults", "golden"}
"""Folders of tests that run code which other tests cover: measuring coverage doubles the time that a test takes."""
SHARED = pytest.StashKey[SharedServers]()


def pytest_configure(config: pytest.Config) -> None:
    # Hypothesis fails an example that takes more than 200 ms, which on a busy machine any may.
    hypothesis.settings.register_profile("without-deadline", deadline=None)
    hypothesis.settings.load_profile("without-deadline")
    # By default structlog draws tracebacks with rich, where that is installed: half a second for each.
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, plain])
    # Child processes import the program from this checkout, installed or not.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist asks the process that started it
        config.stash[SHARED] = SharedServers(config.getoption("numprocesses", None) or 1)
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.collectonly:
            config.stash[SHARED].start_all()  # all tests are run: start the servers while the tests are collected


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHARED in config.stash:
        config.stash[SHARED].close()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector neither run while modules and tests are made, nor look at them ever after: all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group tests that share an expensive fixture, and mix tests that compute with tests that wait."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in UNMEASURED or _runs_on_sqlite_too(item):
            item.add_marker("no_cover")
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if isinstance(item, pytest.Function) and (own := EXPENSIVE_FIXTURES.intersection(item.fixturenames)):
            # One worker runs a group, and sets the fixture up once.
            group = next((fixture for fixture in ONE_FOR_ALL if fixture in own), item.module.__name__)
            # The name by which pytest-xdist knows a group. Its own marker has no effect with pytest 9.2: it changes an
            # attribute that node ids are no longer made of.
            item._id = NodeId.parse(f"{item.nodeid}@{group}")
    _mix(items)


def _runs_on_sqlite_too(item: pytest.Item) -> bool:
    """Whether a test runs on PostgreSQL the code that another run of it covers on SQLite."""
    parameters = getattr(item, "callspec", None)
    return parameters is not None and parameters.params.get("database_url") == "postgresql"


def _mix(items: list[pytest.Item]) -> None:
    """Spread the tests that start the service's processes evenly among the others, many of which wait."""
    streams: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        streams[item.path.relative_to(TESTS).parts[0] in STARTS_PROCESSES].append(item)
    places = {item: place / len(stream) for stream in streams.values() for place, item in enumerate(stream)}
    items.sort(key=places.__getitem__)


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL server shared by all tests; each creates its own databases."""
    return os.environ.get("TEST_DATABASE_URL") or _shared("postgresql")


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ broker shared by all tests; use unique queue names, and never restart it."""
    return os.environ.get("TEST_RABBITMQ_URL") or _shared("rabbitmq")


@pytest.fixture(scope="session")
def s3_url() -> str:
    """An S3 server shared by all tests with the bucket ``tests``; each test uses its own prefix."""
    url = os.environ.get("TEST_S3_URL") or _shared("s3")
    s3.make_bucket(url, BUCKET)
    return url


@pytest.fixture(scope="session")
def gcs_url() -> str:
    """The same of Google Cloud Storage."""
    url = os.environ.get("TEST_GCS_URL") or _shared("gcs")
    gcs.make_bucket(url, BUCKET)
    return url


@pytest.fixture(scope="session")
def azure_url() -> str:
    """The same of Azure Blob Storage, with a container."""
    url = os.environ.get("TEST_AZURE_URL") or _shared("azure")
    azure.make_container(url, BUCKET)
    return url


@pytest.fixture(scope="session")
def fork_server() -> str:
    """What forks the service's processes for all tests, which is faster than starting them."""
    return _shared("fork-server")


@pytest.fixture
def s3_env(s3_url: str) -> dict[str, str]:
    """The settings for an unused prefix on the S3 server."""
    return {"STORAGE_URL": f"s3://{BUCKET}/{_unique('test')}", **s3.environment(s3_url)}


@pytest.fixture
def gcs_env(gcs_url: str) -> dict[str, str]:
    """The same for Google Cloud Storage."""
    return {"STORAGE_URL": f"gs://{BUCKET}/{_unique('test')}", **gcs.environment(gcs_url)}


@pytest.fixture
def azure_env(azure_url: str) -> dict[str, str]:
    """The same for Azure Blob Storage."""
    return {"STORAGE_URL": f"az://{BUCKET}/{_unique('test')}", **azure.environment(azure_url)}


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one module, to stop, kill and restart."""
    with PostgresServer(new_folder()) as server:
        yield server


@pytest.fixture
def rabbitmq_virtual_host(rabbitmq_url: str, request: pytest.FixtureRequest) -> str:
    """A virtual host of the shared broker for one test at a time, with empty queues."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if "TEST_RABBITMQ_URL" in os.environ:  # has no virtual hosts of ours
        server: RabbitMQServer = request.getfixturevalue("private_rabbitmq")
        url = server.url
    else:
        url = rabbitmq_url + worker
    _outside_event_loop(lambda: asyncio.run(purge_queues(url)))
    return url


@pytest.fixture(scope="session")
def private_rabbitmq() -> Iterator[RabbitMQServer]:
    """A RabbitMQ broker for one worker process; use ``own_rabbitmq``."""
    with RabbitMQServer(new_folder()) as server:
        yield server


@pytest.fixture
def own_rabbitmq(private_rabbitmq: RabbitMQServer) -> RabbitMQServer:
    """A RabbitMQ broker for one test at a time, with empty queues, to stop, kill and restart."""
    if not private_rabbitmq.running:
        private_rabbitmq.start()
    _outside_event_loop(lambda: asyncio.run(purge_queues(private_rabbitmq.url)))
    return private_rabbitmq


@pytest.fixture(scope="module")
def own_s3() -> Iterator[s3.SeaweedServer]:
    """An S3 server for one module, to stop, kill and restart."""
    with s3.SeaweedServer(new_folder()) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, migrated database; the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_database_url")
    return url


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A new, migrated SQLite database."""
    database = tmp_path / "images.db"
    shutil.copyfile(sqlite_template, database)
    return f"sqlite+aiosqlite:///{database}"


@pytest.fixture
def postgres_database_url(postgres_databases: Databases) -> Iterator[str]:
    """A migrated and empty PostgreSQL database."""
    with postgres_databases.one() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database without tables; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    else:
        yield request.getfixturevalue("empty_postgres_url")


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """A new PostgreSQL database without tables."""
    name = _unique("empty")
    yield create_database(postgres_url, name)
    drop_database(postgres_url, name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy, which is faster than migrating."""
    database = tmp_path_factory.mktemp("template") / "images.db"
    _outside_event_loop(lambda: upgrade(f"sqlite+aiosqlite:///{database}"))
    leftovers = [path.name for path in database.parent.iterdir() if path != database]
    assert not leftovers, f"the template is not in one file: {leftovers}"
    return database


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated PostgreSQL database to clone."""
    name = _unique("template")
    url = create_database(postgres_url, name)
    _outside_event_loop(lambda: upgrade(url))
    yield name
    drop_database(postgres_url, name)


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str, postgres_template: str) -> Iterator[Databases]:
    """Migrated and empty PostgreSQL databases."""
    databases = Databases(postgres_url, postgres_template)
    yield databases
    databases.close()


def _shared(kind: str) -> str:
    try:
        return shared_url(kind)
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)


def _unique(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


def _outside_event_loop(function: Callable[[], None]) -> None:
    """Run a function in a new thread, so that it works in tests with and without an event loop."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(function).result()
