"""Reconciler: queues unfinished images again whose message or worker was lost, and outputs that DONE images lack."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from image_service.database import Database
from image_service.database.outputs import LackingImage
from image_service.database.scheduling import UnfinishedImage
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.ports import Delivery, TaskQueue
from image_service.services.publishing import Publisher

_BATCH: Final = 100
_MAX_DELAY: Final = 3600.0
_MAX_DOUBLINGS: Final = 10
_WINDOW: Final = 500

_log = structlog.get_logger(__name__)


class Reconciler:
    """Queues images that are due. Safe to run in all workers at once: one guarded UPDATE decides who publishes.

    Args:
        database: Where images are recorded.
        queue: Where messages are published and counted.
        publisher: Publishes NEW images to the same queue.
        batch: Images read in one query.
        window: Messages in the backfill lane from which on no lacking outputs are queued.
    """

    def __init__(
        self,
        *,
        database: Database,
        queue: TaskQueue,
        publisher: Publisher,
        batch: int = _BATCH,
        window: int = _WINDOW,
    ) -> None:
        self._database = database
        self._queue = queue
        self._publisher = publisher
        self._timing = publisher.timing
        self._batch = batch
        self._window = window

    async def resume(self) -> None:
        """End all leases and make every unfinished image due. Only for a process that knows it is the only one.

        The same for outputs that DONE images lack.

        Raises:
            DatabaseUnavailable: nothing was changed.
        """
        async with self._database.statement() as repositories:
            resumed = await repositories.scheduling.resume_all()
        async with self._database.statement() as repositories:
            resumed += await repositories.outputs.resume_outputs()
        if resumed:
            _log.info("resuming unfinished images of an earlier run", images=resumed)

    async def run_once(self) -> int:
        """Queue every image that is due or whose message was lost, and outputs that images lack; returns how many.

        Raises:
            Outage: the database or the queue is unavailable; what was not published stays due.
        """
        # Before any change: while the queue is unavailable, nothing may be recorded as published.
        began = time.monotonic()
        waiting = await self._queue.depth()
        if await self._due():
            await self._postpone(waiting, before=began)
        published = 0
        while batch := await self._due():
            published += await self._publish_all(batch)
        began = time.monotonic()
        for lane in (lane for lane, messages in waiting.items() if messages == 0):
            # Images wait but no message does: the broker lost its data, or its queue was deleted.
            while batch := await self._lost(lane, before=began):
                published += await self._publish_all(batch)
        if waiting[Lane.BACKFILL] == 0:
            while lacking := await self._lost_outputs(before=began):
                published += sum([await self._publish_outputs(image) for image in lacking])
        published += await self._queue_outputs(room=self._window - waiting[Lane.BACKFILL])
        if published:
            _log.info("images queued again", images=published)
        return published

    async def _due(self) -> Sequence[UnfinishedImage]:
        async with self._database.statement() as repositories:
            return await repositories.scheduling.due(limit=self._batch)

    async def _postpone(self, waiting: Mapping[Lane, int], *, before: float) -> None:
        """Postpone due images whose messages still wait: in a deep backlog they wait long without being lost."""
        for lane, messages in waiting.items():
            async with self._database.transaction() as repositories:
                await repositories.scheduling.postpone(
                    lane,
                    messages=messages,
                    queued_before=time.monotonic() - before,
                    due_in=self._timing.unclaimed_after,
                )

    async def _lost(self, lane: Lane, *, before: float) -> Sequence[UnfinishedImage]:
        """Returns images of an empty lane queued long enough before ``before``: none that this run published itself."""
        age = self._timing.unqueued_after + time.monotonic() - before
        async with self._database.statement() as repositories:
            return await repositories.scheduling.unclaimed(lane, queued_before=age, limit=self._batch)

    async def _publish_all(self, images: Sequence[UnfinishedImage]) -> int:
        return sum([await self._publish(image) for image in images])

    async def _publish(self, image: UnfinishedImage) -> bool:
        """Queue one image, unless another reconciler did; returns whether this one did."""
        new = image.status is Status.NEW
        # The delay grows because this message may be a duplicate. If it is lost too, that shows once the lane is empty.
        # NEW images are not searched for then, so they stay due until they are queued.
        delay = self._delay(image.publishes)
        async with self._database.statement() as repositories:
            due_in = self._timing.unqueued_after if new else delay
            if not await repositories.scheduling.reserve_for_publish(image, due_in=due_in):
                return False
        delivery = Delivery(image_id=image.id, lane=image.lane)
        if new:
            await self._publisher.publish(delivery, due_in=delay)
        else:
            await self._queue.publish(delivery)
        return True

    async def _queue_outputs(self, *, room: int) -> int:
        """Queue lacking outputs that are due, while the lane has room; returns of how many images."""
        published = 0
        while room > 0:
            async with self._database.statement() as repositories:
                due = await repositories.outputs.outputs_due(limit=min(room, self._batch))
            if not due:
                break
            room -= len(due)
            published += sum([await self._publish_outputs(image) for image in due])
        return published

    async def _lost_outputs(self, *, before: float) -> Sequence[LackingImage]:
        """Returns images whose outputs were queued long enough before ``before``, while their lane is empty."""
        age = self._timing.unqueued_after + time.monotonic() - before
        async with self._database.statement() as repositories:
            return await repositories.outputs.outputs_unclaimed(queued_before=age, limit=self._batch)

    async def _publish_outputs(self, image: LackingImage) -> bool:
        async with self._database.statement() as repositories:
            if not await repositories.outputs.reserve_outputs(image, due_in=self._delay(image.publishes)):
                return False
        await self._queue.publish(Delivery(image_id=image.id, lane=Lane.BACKFILL))
        return True

    def _delay(self, publishes: int) -> float:
        """Returns the seconds until an image is queued again that was queued so many times."""
        delay: float = min(_MAX_DELAY, self._timing.unclaimed_after * 2 ** min(publishes, _MAX_DOUBLINGS))
        return delay * random.uniform(1.0, 1.2)  # noqa: S311 — jitter, not cryptography
