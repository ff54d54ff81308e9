"""Simulated hosts for the kill-point and scenario tests."""

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
    """Stops the hosts pushed onto it."""
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
    """Makes a host for API and worker with given settings, on a new database and this module's broker."""
    await queues.empty(own_rabbitmq.url)

    def make_host(**settings: str) -> Host:
        host = Host(tmp_path, fork_server, postgres_database_url, own_rabbitmq.url, settings)
        hosts.push_async_callback(host.close)
        return host

    return make_host


@pytest.fixture
def distributed(make_host: HostFactory) -> Host:
    """A host for API and worker."""
    return make_host()


@pytest.fixture
def standalone(hosts: AsyncExitStack, tmp_path: Path, fork_server: ForkServer) -> Host:
    """A host for the standalone service."""
    host = Host(tmp_path, fork_server, f"sqlite+aiosqlite:///{tmp_path / 'data' / 'images.db'}", None, {})
    hosts.push_async_callback(host.close)
    return host
