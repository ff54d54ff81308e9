"""Reprocesses and requeues images on request of a client, an operator or the audit."""

import asyncio
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database, Repositories
from image_service.domain.image import Image
from image_service.domain.lane import Lane, lane_of
from image_service.domain.recipe import Recipes
from image_service.domain.status import Status
from image_service.errors import ImageNotFound, OriginalRemoved, StillProcessing
from image_service.ports import NULL_SIGNAL, Delivery, EventSignal
from image_service.services.publishing import Publisher

_BATCH: Final = 100

_log = structlog.get_logger(__name__)


class RequeueResult(StrEnum):
    """What requeueing an image did."""

    NOT_FOUND = "not-found"
    REPROCESSING = "reprocessing"
    """It was finished, and is NEW again."""
    MADE_DUE = "made-due"
    """It was unfinished and unclaimed: the reconciler queues it in its next run."""
    BUSY = "busy"
    """A worker holds a claim on it, or it waits for its next attempt. Nothing was changed."""
    ORIGINAL_REMOVED = "original-removed"
    """It is finished, and cannot be processed without its original. Nothing was changed."""


class Reprocessing:
    """Queues images again. The old thumbnails stay until the new ones are complete.

    Args:
        database: Where images are recorded.
        publisher: Publishes images that are reprocessed at once; requeued images are left to the reconciler.
        recipes: All recipes, by which the lane is chosen.
        answer_within: Seconds after which ``reprocess`` stops waiting for the queue.
        signal: Tells of the events that are recorded.
    """

    def __init__(
        self,
        *,
        database: Database,
        publisher: Publisher,
        recipes: Recipes,
        answer_within: float = 5.0,
        signal: EventSignal = NULL_SIGNAL,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._recipes = recipes
        self._answer_within = answer_within
        self._signal = signal

    async def reprocess(self, image_id: UUID, *, recipe: str | None = None, request_id: str | None = None) -> Status:
        """Reprocess a finished image at once; returns PROCESSING, or NEW if the queue is unavailable.

        Args:
            image_id: The image.
            recipe: The name of the recipe that it is to have from now on; None keeps the one it has.
            request_id: The id of the request, for the worker's log.

        Raises:
            ImageNotFound: there is no image with this id.
            StillProcessing: it is not finished.
            OriginalRemoved: its original was removed.
            DatabaseUnavailable: the request may or may not be recorded.
        """
        answer_by = asyncio.get_running_loop().time() + self._answer_within
        async with self._database.transaction() as repositories:
            image = await repositories.images.get(image_id)
            if image is None:
                raise ImageNotFound
            if image.original_removed_at is not None:
                raise OriginalRemoved
            lane = self._lane(image, image.recipe_name if recipe is None else recipe)
            due_in = self._publisher.timing.unqueued_after
            if not await repositories.images.reprocess([image_id], due_in=due_in, lane=lane, recipe=recipe):
                raise StillProcessing
        self._signal.notify()
        delivery = Delivery(image_id=image_id, lane=lane, request_id=request_id)
        queued = await self._publisher.try_publish(delivery, until=answer_by)
        _log.info("reprocessing accepted", image_id=str(image_id), queued=queued)
        return Status.PROCESSING if queued else Status.NEW

    async def requeue(self, image_id: UUID) -> RequeueResult:
        """Make an image NEW or due, whatever its state, so that the reconciler of a worker queues it.

        Raises:
            DatabaseUnavailable: it may or may not be marked; it is safe to repeat.
        """
        async with self._database.transaction() as repositories:
            image = await repositories.images.get(image_id)
            if image is None:
                return RequeueResult.NOT_FOUND
            if await repositories.scheduling.make_due([image_id]):
                return RequeueResult.MADE_DUE
            reprocessing = await self._reprocess(repositories, image)
        if reprocessing:
            self._signal.notify()
            return RequeueResult.REPROCESSING
        return RequeueResult.BUSY if image.original_removed_at is None else RequeueResult.ORIGINAL_REMOVED

    async def requeue_failed(self, *, code: str | None = None) -> int:
        """Make all images in ERROR, or those with one error code, NEW again; returns how many.

        Raises:
            DatabaseUnavailable: some may be marked; it is safe to repeat.
        """
        marked = 0
        last: UUID | None = None
        while True:
            async with self._database.transaction() as repositories:
                failed = await repositories.catalogue.failed(limit=_BATCH, after=last, code=code)
                images = [await repositories.images.get(image_id) for image_id in failed]
                marked += sum([await self._reprocess(repositories, image) for image in images if image])
            if not failed:
                return marked
            self._signal.notify()
            last = failed[-1]

    async def _reprocess(self, repositories: Repositories, image: Image) -> bool:
        lane = self._lane(image, image.recipe_name)
        return bool(await repositories.images.reprocess([image.id], lane=lane, due_in=0))

    def _lane(self, image: Image, recipe_name: str | None) -> Lane:
        recipe = self._recipes.find(recipe_name)
        # A worker that knows the recipe may take longer than for the default one.
        return Lane.NORMAL if recipe is None else lane_of(image.header, image.size_bytes, recipe)
