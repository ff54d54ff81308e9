"""Mending what a crash or an outage left behind: images that nobody works on are queued again."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from image_service.database import Database
from image_service.database.scheduling import UnfinishedImage
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.ports import Delivery, TaskQueue
from image_service.services.timing import QueueTiming

_BATCH: Final = 100
_LONGEST_DELAY: Final = 3600.0
_MOST_DOUBLINGS: Final = 10

_log = structlog.get_logger(__name__)


class Reconciler:
    """Safe to run in every worker at once: for each image, one guarded UPDATE decides who publishes it."""

    def __init__(self, *, database: Database, queue: TaskQueue, timing: QueueTiming) -> None:
        self._database = database
        self._queue = queue
        self._timing = timing

    async def resume(self) -> None:
        """Make every unfinished image due, whoever held it. Only for a process that knows it is the only one.

        Raises:
            DatabaseUnavailable: nothing was changed.
        """
        async with self._database.statement() as repositories:
            resumed = await repositories.scheduling.resume_all()
        if resumed:
            _log.info("resuming what an earlier run left unfinished", images=resumed)

    async def run_once(self) -> int:
        """Queue every image whose time has come, and those whose messages got lost; returns how many.

        Raises:
            Outage: the database or the queue is away; what was not published stays due.
        """
        # Asked first: while the queue is away, nothing must be counted as published.
        began = time.monotonic()
        waiting = await self._queue.depth()
        if await self._due():
            await self._postpone(waiting, before=began)
        published = 0
        while batch := await self._due():
            published += await self._publish_all(batch)
        began = time.monotonic()
        for lane in (lane for lane, messages in waiting.items() if messages == 0):
            # No message waits, yet nobody took them: the broker lost its data, or its queue was deleted.
            while batch := await self._lost(lane, before=began):
                published += await self._publish_all(batch)
        if published:
            _log.info("queued images that nobody worked on", images=published)
        return published

    async def _due(self) -> Sequence[UnfinishedImage]:
        async with self._database.statement() as repositories:
            return await repositories.scheduling.due(limit=_BATCH)

    async def _postpone(self, waiting: Mapping[Lane, int], *, before: float) -> None:
        """In a deep backlog no message is lost because it takes long: what has waited long just waits on."""
        for lane, messages in waiting.items():
            async with self._database.transaction() as repositories:
                await repositories.scheduling.postpone(
                    lane,
                    messages=messages,
                    queued_before=time.monotonic() - before,
                    due_in=self._timing.unclaimed_after,
                )

    async def _lost(self, lane: Lane, *, before: float) -> Sequence[UnfinishedImage]:
        """Images of a lane whose message has had its time by ``before``: none that this round published itself."""
        age = self._timing.unqueued_after + time.monotonic() - before
        async with self._database.statement() as repositories:
            return await repositories.scheduling.unclaimed(lane, queued_before=age, limit=_BATCH)

    async def _publish_all(self, images: Sequence[UnfinishedImage]) -> int:
        return sum([await self._publish(image) for image in images])

    async def _publish(self, image: UnfinishedImage) -> bool:
        """Queue one image, unless another reconciler was faster."""
        new = image.status is Status.NEW
        # A growing delay: this message may be one too many. One that is lost all the same shows once the queue is
        # empty; but NEW images are not looked for then, so they stay due until they are queued.
        delay = min(_LONGEST_DELAY, self._timing.unclaimed_after * 2 ** min(image.publishes, _MOST_DOUBLINGS))
        delay *= random.uniform(1.0, 1.2)  # noqa: S311 — jitter, not cryptography
        async with self._database.statement() as repositories:
            due_in = self._timing.unqueued_after if new else delay
            if not await repositories.scheduling.reserve_for_publish(image, due_in=due_in):
                return False
        await self._queue.publish(Delivery(image_id=image.id, lane=image.lane))
        if new:
            async with self._database.statement() as repositories:
                await repositories.scheduling.mark_queued(image.id, due_in=delay)
        return True
