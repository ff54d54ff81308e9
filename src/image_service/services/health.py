"""Whether the parts that the service depends on answer now."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from image_service.database import Database
from image_service.errors import Outage
from image_service.ports import Storage, TaskQueue

_PROBE_LIMIT: Final = 2.0

_log = structlog.get_logger(__name__)


class Condition(StrEnum):
    """What can be expected of the service."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Uploads are accepted and kept, but wait for the queue."""
    UNHEALTHY = "unhealthy"
    """Uploads cannot be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The outcome of one round of probes."""

    database: bool
    queue: bool
    storage: bool

    @property
    def condition(self) -> Condition:
        """What the outcome means."""
        if not (self.database and self.storage):
            return Condition.UNHEALTHY
        return Condition.HEALTHY if self.queue else Condition.DEGRADED


class HealthCheck:
    """Probes all parts at once, afresh each time."""

    def __init__(self, *, database: Database, queue: TaskQueue, storage: Storage) -> None:
        self._database = database
        self._queue = queue
        self._storage = storage

    async def run(self) -> Health:
        """Takes two seconds at most, whatever hangs."""
        database, queue, storage = await asyncio.gather(
            _answers("database", self._database.probe),
            _answers("queue", self._queue.probe),
            _answers("storage", self._storage.probe),
        )
        return Health(database=database, queue=queue, storage=storage)


async def _answers(part: str, probe: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(_PROBE_LIMIT):
            await probe()
    except (Outage, TimeoutError) as error:
        _log.warning("a part of the service does not answer", part=part, reason=str(error) or "no answer in time")
        return False
    return True
