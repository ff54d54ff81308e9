"""Machines for the tests of what happens when a process dies."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harness.servers import RabbitMQServer
from tests.faults import queues
from tests.faults.fork_server import ForkServer
from tests.faults.host import Host

HostFactory = Callable[..., Host]


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as fork_server:
        yield fork_server


@pytest.fixture
async def hosts() -> AsyncIterator[AsyncExitStack]:
    """Ends the machines that are put on it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def make_host(
    hosts: AsyncExitStack,
    tmp_path: Path,
    fork_server: ForkServer,
    postgres_database_url: str,
    own_rabbitmq: RabbitMQServer,
) -> HostFactory:
    """A machine for API and worker with some settings, on a new database, and a broker of this module's."""
    await queues.empty(own_rabbitmq.url)

    def make_host(**settings: str) -> Host:
        host = Host(tmp_path, fork_server, postgres_database_url, own_rabbitmq.url, settings)
        hosts.push_async_callback(host.close)
        return machine

    return make_host


@pytest.fixture
def distributed(make_host: HostFactory) -> Host:
    """A machine for API and worker."""
    return make_host()


@pytest.fixture
def standalone(hosts: AsyncExitStack, tmp_path: Path, fork_server: ForkServer) -> Host:
    """A machine for the whole service in one process."""
    host = Host(tmp_path, fork_server, f"sqlite+aiosqlite:///{tmp_path / 'data' / 'images.db'}", None, {})
    hosts.push_async_callback(host.close)
    return machine
