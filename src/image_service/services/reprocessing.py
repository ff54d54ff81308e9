"""Rendering images again: one that somebody asks for, or all whose thumbnails were made under an older recipe."""

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain.lane import Lane, lane_of
from image_service.domain.recipe import Recipe
from image_service.domain.status import Status
from image_service.errors import ImageNotFound, OriginalRemoved, StillProcessing
from image_service.ports import Delivery
from image_service.services.queueing import Queueing

_ANSWER_WITHIN: Final = 5.0
"""Seconds after which a queue that does not answer is not waited for."""
_BATCH: Final = 100
_LOOK_AT: Final = 1000
"""Images that are looked at in one step for those that are outdated."""

_log = structlog.get_logger(__name__)


class Reprocessing:
    """The use case of ``POST /images/{id}/reprocess``. The old thumbnails stay until the new ones are complete."""

    def __init__(self, *, database: Database, queueing: Queueing) -> None:
        self._database = database
        self._queueing = queueing

    async def reprocess(self, image_id: UUID, *, request_id: str | None = None) -> Status:
        """Have a finished image rendered again; returns PROCESSING, or NEW while the queue is away.

        Raises:
            ImageNotFound: there is none with this id.
            StillProcessing: it is not finished.
            OriginalRemoved: there is nothing to render it from.
            DatabaseUnavailable: it may or may not be recorded.
        """
        answer_by = asyncio.get_running_loop().time() + _ANSWER_WITHIN
        async with self._database.transaction() as repositories:
            image = await repositories.images.get(image_id)
            if image is None:
                raise ImageNotFound
            if image.original_removed_at is not None:
                raise OriginalRemoved
            lane = lane_of(image.header)
            due_in = self._queueing.timing.unqueued_after
            if not await repositories.images.reprocess([image_id], lane=lane, due_in=due_in):
                raise StillProcessing
        delivery = Delivery(image_id=image_id, lane=lane, request_id=request_id)
        queued = await self._queueing.enqueue(delivery, until=answer_by)
        _log.info("image is to be processed again", image_id=str(image_id), queued=queued)
        return Status.PROCESSING if queued else Status.NEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a back-fill is."""

    marked: int
    """Images that were given to the workers by this step."""
    waiting: int
    """Images that the workers have yet to finish."""


class Backfill:
    """Gives the workers the images whose thumbnails are out of date, a bounded number at a time.

    Which those are stands in the database, so that it can be interrupted at any time, and begun again.
    """

    def __init__(self, *, database: Database, recipe: Recipe) -> None:
        """Begin at the oldest image.

        Args:
            database: Where images are recorded.
            recipe: What thumbnails should be made under.
        """
        self._database = database
        self._fingerprint = recipe.fingerprint
        self._last: UUID | None = None

    async def step(self, *, window: int) -> Progress:
        """Fill the lane up. When a step has marked nothing and nothing waits, the back-fill is over.

        Args:
            window: Images that may wait in the lane.

        Raises:
            DatabaseUnavailable: this step may or may not have been made; the next goes on from there.
        """
        marked = 0
        async with self._database.statement() as repositories:
            waiting = await repositories.catalogue.open_count(limit=window, lane=Lane.BACKFILL)
        while waiting < window:
            async with self._database.transaction() as repositories:
                room = min(_BATCH, window - waiting)
                seen = await repositories.catalogue.outdated(self._fingerprint, among=_LOOK_AT, after=self._last)
                if not seen:
                    break
                images = [image_id for image_id, outdated in seen.items() if outdated][:room]
                queued = await repositories.images.reprocess(images, lane=Lane.BACKFILL, due_in=0, only=Status.DONE)
            self._last = images[-1] if len(images) == room else next(reversed(seen))
            marked += len(queued)
            waiting += len(queued)
        return Progress(marked=marked, waiting=waiting)
