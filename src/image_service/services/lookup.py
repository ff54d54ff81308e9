"""Finds images and their files."""

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
"""How long a presigned URL is valid, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A stored file to serve."""

    key: str
    name: str
    """The file name for clients that save it."""
    content_type: str
    size_bytes: int
    sha256: str


class Lookup:
    """Reads images and files.

    Args:
        database: Where images are recorded.
        storage: Where their files are.
        presigned_urls: Given if clients get files from the storage directly.
    """

    def __init__(self, *, database: Database, storage: Storage, presigned_urls: PresignedUrls | None = None) -> None:
        self._database = database
        self._storage = storage
        self._presigned_urls = presigned_urls

    async def image(self, image_id: UUID) -> Image:
        """Returns an image in any state.

        Raises:
            ImageNotFound: there is no image with this id.
            DatabaseUnavailable: the database cannot be reached.
        """
        image = await self.find(image_id)
        if image is None:
            raise ImageNotFound
        return image

    async def find(self, image_id: UUID) -> Image | None:
        """Returns an image in any state, or None if there is none with this id.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.statement() as repositories:
            return await repositories.images.get(image_id)

    async def newest(self, *, limit: int, before: UUID | None, status: Status | None) -> Sequence[Image]:
        """Returns a page of images, newest first.

        Args:
            limit: The most images to return.
            before: Returns only images older than this one, which may be deleted.
            status: Returns only images in this state.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.transaction() as repositories:
            return await repositories.catalogue.newest(limit=limit, before=before, status=status)

    async def original(self, image_id: UUID) -> StoredFile:
        """Returns the original of an image in any state. Also raises what ``image`` raises.

        Raises:
            OriginalRemoved: its retention period ended.
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

    async def thumbnail(self, image_id: UUID, output: str) -> StoredFile:
        """Returns a thumbnail of an image that is or was DONE. Also raises what ``image`` raises.

        Raises:
            ThumbnailNotFound: the image was never DONE, or has no such output.
        """
        image = await self.image(image_id)
        for thumbnail in image.thumbnails:
            if thumbnail.output == output:
                return StoredFile(
                    key=thumbnail.key,
                    name=f"{image_id}-{output}.{ImageFormat.of(thumbnail.content_type).extension}",
                    content_type=thumbnail.content_type,
                    size_bytes=thumbnail.size_bytes,
                    sha256=thumbnail.sha256,
                )
        raise ThumbnailNotFound

    def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yields the file's content; see ``Storage.read``."""
        return self._storage.read(file.key, start, length)

    async def presign(self, file: StoredFile, method: str) -> str | None:
        """Returns a presigned URL for ``GET`` or ``HEAD``; None if the API sends files itself.

        Raises:
            StorageUnavailable: no URL can be made.
        """
        return (
            None
            if self._presigned_urls is None
            else await self._presigned_urls.presign(file.key, method=method, seconds=PRESIGNED_SECONDS)
        )
