"""Whether the parts that the service depends on answer now."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import structlog

from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, Observer, Storage, TaskQueue

_PROBE_LIMIT: Final = 2.0

T = TypeVar("T")

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
    waiting: Mapping[Lane, int] | None = None
    """Messages in each lane that no worker has taken; None while the queue is away."""

    @property
    def condition(self) -> Condition:
        """What the outcome means."""
        if not (self.database and self.storage):
            return Condition.UNHEALTHY
        return Condition.HEALTHY if self.queue else Condition.DEGRADED


class HealthCheck:
    """Probes all parts at once, afresh each time."""

    def __init__(
        self, *, database: Database, queue: TaskQueue, storage: Storage, observer: Observer = NULL_OBSERVER
    ) -> None:
        self._database = database
        self._queue = queue
        self._storage = storage
        self._observer = observer

    async def run(self) -> Health:
        """Takes two seconds at most, whatever hangs."""
        (database, _), (queue, waiting), (storage, _) = await asyncio.gather(
            _answer("database", self._database.probe),
            _answer("queue", self._queue.depth),
            _answer("storage", self._storage.probe),
        )
        self._observer.probed({"database": database, "queue": queue, "storage": storage}, waiting)
        return Health(database=database, queue=queue, storage=storage, waiting=waiting)


async def _answer(part: str, probe: Callable[[], Awaitable[T]]) -> tuple[bool, T | None]:
    """Whether a part answered, and what."""
    try:
        async with asyncio.timeout(_PROBE_LIMIT):
            return True, await probe()
    except (Outage, TimeoutError) as error:
        _log.warning("a part of the service does not answer", part=part, reason=str(error) or "no answer in time")
        return False, None
