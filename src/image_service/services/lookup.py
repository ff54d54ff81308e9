"""Finding images, and the files that belong to them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.image import Image, ImageFormat
from image_service.domain.keys import original_key
from image_service.domain.status import Status
from image_service.errors import ImageNotFound, OriginalRemoved, ThumbnailNotFound
from image_service.ports import PresignedUrls, Storage

PRESIGNED_SECONDS: Final = 300
"""For how long a link to a file works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that can be served."""

    key: str
    name: str
    """A file name for whoever saves it."""
    content_type: str
    size_bytes: int
    sha256: str


class Lookup:
    """The use cases of everything that is read."""

    def __init__(self, *, database: Database, storage: Storage, presigned_urls: PresignedUrls | None = None) -> None:
        """Make it; with presigned URLs, if clients are to get files from the storage itself."""
        self._database = database
        self._storage = storage
        self._presigned_urls = presigned_urls

    async def image(self, image_id: UUID) -> Image:
        """An image, in any state.

        Raises:
            ImageNotFound: there is none with this id.
            DatabaseUnavailable: it cannot be told.
        """
        image = await self.find(image_id)
        if image is None:
            raise ImageNotFound
        return image

    async def find(self, image_id: UUID) -> Image | None:
        """An image, in any state, or None where there is none (any more).

        Raises:
            DatabaseUnavailable: it cannot be told.
        """
        async with self._database.statement() as repositories:
            return await repositories.images.get(image_id)

    async def newest(self, *, limit: int, before: UUID | None, status: Status | None) -> Sequence[Image]:
        """Images from the newest to the oldest, at most so many.

        Args:
            limit: How many.
            before: Only older ones than this, which need not exist (any more).
            status: Only those in this state.

        Raises:
            DatabaseUnavailable: they cannot be told.
        """
        async with self._database.transaction() as repositories:
            return await repositories.catalogue.newest(limit=limit, before=before, status=status)

    async def original(self, image_id: UUID) -> StoredFile:
        """An image's original, in any state; raises what ``image`` raises.

        Raises:
            OriginalRemoved: its retention has ended.
        """
        image = await self.image(image_id)
        if image.original_removed_at is not None:
            raise OriginalRemoved
        return StoredFile(
            key=original_key(image_id),
            name=f"{image_id}.{image.header.format.extension}",
            content_type=image.header.format.content_type,
            size_bytes=image.size_bytes,
            sha256=image.sha256,
        )

    async def thumbnail(self, image_id: UUID, preset: str) -> StoredFile:
        """One thumbnail of an image that is or was DONE; raises what ``image`` raises.

        Raises:
            ThumbnailNotFound: it never was DONE, or there is no such preset.
        """
        image = await self.image(image_id)
        for thumbnail in image.thumbnails:
            if thumbnail.preset == preset:
                return StoredFile(
                    key=thumbnail.key,
                    name=f"{image_id}-{preset}.{ImageFormat.of(thumbnail.content_type).extension}",
                    content_type=thumbnail.content_type,
                    size_bytes=thumbnail.size_bytes,
                    sha256=thumbnail.sha256,
                )
        raise ThumbnailNotFound

    def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes; see ``Storage.read``."""
        return self._storage.read(file.key, start, length)

    async def presign(self, file: StoredFile, method: str) -> str | None:
        """Where a client gets the file with a ``GET`` or ``HEAD``; None: from us.

        Raises:
            StorageUnavailable: no link can be made.
        """
        return (
            None
            if self._presigned_urls is None
            else await self._presigned_urls.presign(file.key, method=method, seconds=PRESIGNED_SECONDS)
        )
