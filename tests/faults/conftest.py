"""Simulated hosts for the kill-point and scenario tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.host import Host

HostFactory = Callable[..., Host]


@pytest.fixture
async def hosts() -> AsyncIterator[AsyncExitStack]:
    """Stops the hosts pushed onto it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_host(
    hosts: AsyncExitStack,
    tmp_path: Path,
    fork_server: str,
    postgres_database_url: str,
    rabbitmq_virtual_host: str,
) -> HostFactory:
    """Makes a host for API and worker with given settings, on a new database and a private virtual host."""

    def make_host(**settings: str) -> Host:
        host = Host(tmp_path, fork_server, postgres_database_url, rabbitmq_virtual_host, settings)
        hosts.push_async_callback(host.close)
        return host

    return make_host


@pytest.fixture
def distributed(make_host: HostFactory) -> Host:
    """A host for API and worker."""
    return make_host()


@pytest.fixture
def make_standalone(hosts: AsyncExitStack, tmp_path: Path, fork_server: str) -> HostFactory:
    """Makes a host for the standalone service with given settings."""

    def make_host(**settings: str) -> Host:
        host = Host.standalone(tmp_path, fork_server, settings)
        hosts.push_async_callback(host.close)
        return host

    return make_host


@pytest.fixture
def standalone(make_standalone: HostFactory) -> Host:
    """A host for the standalone service."""
    return make_standalone()
