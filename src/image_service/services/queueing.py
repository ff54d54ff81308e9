"""Handing one image to the queue, and noting that it is there."""

import asyncio

import structlog

from image_service.database import Database
from image_service.errors import Outage
from image_service.ports import Delivery, TaskQueue
from image_service.services.timing import QueueTiming

_log = structlog.get_logger(__name__)


class Queueing:
    """For whoever has just recorded an image as NEW, and wants it to be processed at once."""

    def __init__(self, *, database: Database, queue: TaskQueue, timing: QueueTiming) -> None:
        self._database = database
        self._queue = queue
        self.timing = timing

    async def enqueue(self, delivery: Delivery, *, until: float) -> bool:
        """Whether the image is known to be queued. If not, it waits as NEW, and the reconciler queues it.

        Args:
            delivery: The message.
            until: The event loop's time at which no more is waited for.
        """
        try:
            async with asyncio.timeout_at(until):
                await self._queue.publish(delivery)
                async with self._database.statement() as repositories:
                    # False means that a worker was faster: the image is queued all the more.
                    await repositories.scheduling.mark_queued(delivery.image_id, due_in=self.timing.unclaimed_after)
        except (Outage, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _log.warning("image waits to be queued", image_id=str(delivery.image_id), reason=reason)
            return False
        return True
