"""Machines for the tests of what happens when a process dies."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harness.servers import RabbitMQServer
from tests.faults import queues
from tests.faults.machine import Machine
from tests.faults.nursery import Nursery

MachineMaker = Callable[..., Machine]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
async def machines() -> AsyncIterator[AsyncExitStack]:
    """Ends the machines that are put on it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def machine_with(
    machines: AsyncExitStack,
    tmp_path: Path,
    nursery: Nursery,
    postgres_database_url: str,
    own_rabbitmq: RabbitMQServer,
) -> MachineMaker:
    """A machine for API and worker with some settings, on a new database, and a broker of this module's."""
    await queues.empty(own_rabbitmq.url)

    def machine_with(**settings: str) -> Machine:
        machine = Machine(tmp_path, nursery, postgres_database_url, own_rabbitmq.url, settings)
        machines.push_async_callback(machine.close)
        return machine

    return machine_with


@pytest.fixture
def distributed(machine_with: MachineMaker) -> Machine:
    """A machine for API and worker."""
    return machine_with()


@pytest.fixture
def standalone(machines: AsyncExitStack, tmp_path: Path, nursery: Nursery) -> Machine:
    """A machine for the whole service in one process."""
    machine = Machine(tmp_path, nursery, f"sqlite+aiosqlite:///{tmp_path / 'data' / 'images.db'}", None, {})
    machines.push_async_callback(machine.close)
    return machine
