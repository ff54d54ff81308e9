"""Having images processed on an operator's word."""

from enum import StrEnum
from typing import Final
from uuid import UUID

from image_service.database import Database, Repositories
from image_service.domain.image import Image
from image_service.domain.lane import lane_of

_BATCH: Final = 100


class Answer(StrEnum):
    """What became of the wish."""

    UNKNOWN = "there is no such image"
    AGAIN = "is processed again"
    HURRIED = "is queued anew within seconds"
    HELD = "a worker has it, or it rests before its next attempt"
    NO_ORIGINAL = "cannot be processed again: its original was removed"


class Requeueing:
    """Makes finished images NEW again, and unfinished ones due; a worker's reconciler queues both."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def one(self, image_id: UUID) -> Answer:
        """Have one image processed, in whatever state it is.

        Raises:
            DatabaseUnavailable: it may or may not be marked; asking again does no harm.
        """
        async with self._database.transaction() as repositories:
            image = await repositories.images.get(image_id)
            if image is None:
                return Answer.UNKNOWN
            if await repositories.scheduling.make_due([image_id]):
                return Answer.HURRIED
            if await _again(repositories, image):
                return Answer.AGAIN
        return Answer.HELD if image.original_removed_at is None else Answer.NO_ORIGINAL

    async def failed(self, *, code: str | None = None) -> int:
        """Have all images processed again that ended in ERROR, or those with one error code; returns how many.

        Raises:
            DatabaseUnavailable: some may have been marked; asking again does no harm.
        """
        marked = 0
        last: UUID | None = None
        while True:
            async with self._database.transaction() as repositories:
                failed = await repositories.catalogue.failed(limit=_BATCH, after=last, code=code)
                images = [await repositories.images.get(image_id) for image_id in failed]
                marked += sum([await _again(repositories, image) for image in images if image is not None])
            if not failed:
                return marked
            last = failed[-1]


async def _again(repositories: Repositories, image: Image) -> bool:
    return bool(await repositories.images.reprocess([image.id], lane=lane_of(image.header), due_in=0))
