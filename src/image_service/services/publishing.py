"""Publishes one image and marks it as queued; used by ingest, reprocessing and the reconciler."""

import asyncio
from dataclasses import dataclass

import structlog

from image_service.database import Database
from image_service.errors import Outage
from image_service.ports import Delivery, TaskQueue

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTiming:
    """When the reconciler queues an image again."""

    unqueued_after: float
    """Seconds after an image became NEW, if it was not queued since."""
    unclaimed_after: float
    """Seconds after an image was queued, if no worker claimed it and its message is missing; doubles each time."""


class Publisher:
    """Publishes NEW images.

    Args:
        database: Where images are recorded.
        queue: Where messages are published.
        timing: When the reconciler queues an image again.
    """

    def __init__(self, *, database: Database, queue: TaskQueue, timing: QueueTiming) -> None:
        self._database = database
        self._queue = queue
        self.timing = timing

    async def publish(self, delivery: Delivery, *, due_in: float) -> None:
        """Publish a message for a NEW image, then mark the image as queued.

        Args:
            delivery: The message.
            due_in: Seconds after which the reconciler queues the image again if no worker claims it.

        Raises:
            Outage: the image may or may not be queued; it stays due.
        """
        await self._queue.publish(delivery)
        async with self._database.statement() as repositories:
            # Returns False if a worker has claimed the image already, which is fine.
            await repositories.scheduling.mark_queued(delivery.image_id, due_in=due_in)

    async def try_publish(self, delivery: Delivery, *, until: float) -> bool:
        """Publish a message for a NEW image; returns whether the image is known to be queued.

        If not, the image stays NEW, and the reconciler queues it.

        Args:
            delivery: The message.
            until: The event loop's time at which to stop waiting.
        """
        try:
            async with asyncio.timeout_at(until):
                await self.publish(delivery, due_in=self.timing.unclaimed_after)
        except (Outage, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _log.warning("image not queued; the reconciler will", image_id=str(delivery.image_id), reason=reason)
            return False
        return True
