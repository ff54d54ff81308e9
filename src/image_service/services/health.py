"""Health check: probes the dependencies of the service."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import structlog

from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, Observer, Storage, TaskQueue

PROBE_TIMEOUT: Final = 2.0
"""Seconds after which a dependency counts as unavailable."""

REUSED_FOR: Final = 1.0
"""Seconds for which a result is reused: a probe writes to the storage, and anyone may ask for one at any rate."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Condition(StrEnum):
    """The overall condition of the service."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Uploads are accepted, but are processed only once the queue is available."""
    UNHEALTHY = "unhealthy"
    """Uploads cannot be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The result of one health check."""

    database: bool
    queue: bool
    storage: bool
    waiting: Mapping[Lane, int] | None = None
    """Messages in each lane that no worker holds; None if the queue is unavailable."""

    @property
    def condition(self) -> Condition:
        """The overall condition."""
        if not (self.database and self.storage):
            return Condition.UNHEALTHY
        return Condition.HEALTHY if self.queue else Condition.DEGRADED


class HealthCheck:
    """Probes all dependencies concurrently: one probe at a time, whose result is reused for a while.

    Args:
        database: Probed with an INSERT of no rows.
        queue: Probed for its depth.
        storage: Probed by writing a file.
        observer: Notified of each probe.
        probe_timeout: Seconds after which a dependency counts as unavailable.
        reused_for: Seconds, after it ended, for which a probe's result is the answer.
    """

    def __init__(
        self,
        *,
        database: Database,
        queue: TaskQueue,
        storage: Storage,
        observer: Observer = NULL_OBSERVER,
        probe_timeout: float = PROBE_TIMEOUT,
        reused_for: float = REUSED_FOR,
    ) -> None:
        self._database = database
        self._queue = queue
        self._storage = storage
        self._observer = observer
        self._probe_timeout = probe_timeout
        self._reused_for = reused_for
        self._one_at_a_time = asyncio.Lock()
        self._last: Health | None = None
        self._reusable_until = 0.0

    async def run(self) -> Health:
        """Returns the health, within the probe timeout. A call during a probe gets its result."""
        async with self._one_at_a_time:
            if self._last is None or time.monotonic() >= self._reusable_until:
                self._last = await self._probe()
                self._reusable_until = time.monotonic() + self._reused_for
            return self._last

    async def _probe(self) -> Health:
        (database, _), (queue, waiting), (storage, _) = await asyncio.gather(
            self._answer("database", self._database.probe),
            self._answer("queue", self._queue.depth),
            self._answer("storage", self._storage.probe),
        )
        self._observer.probed({"database": database, "queue": queue, "storage": storage}, waiting)
        return Health(database=database, queue=queue, storage=storage, waiting=waiting)

    async def _answer(self, part: str, probe: Callable[[], Awaitable[T]]) -> tuple[bool, T | None]:
        """Returns whether a dependency answered, and its answer."""
        try:
            async with asyncio.timeout(self._probe_timeout):
                return True, await probe()
        except (Outage, TimeoutError) as error:
            _log.warning("dependency unavailable", part=part, reason=str(error) or "no answer in time")
        except Exception:  # noqa: BLE001 — whatever else a probe meets, an upload meets too
            _log.exception("probe failed", part=part)
        return False, None
