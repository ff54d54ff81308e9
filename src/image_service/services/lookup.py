"""Finds images and their files."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.image import Image, Thumbnail
from image_service.domain.keys import original_key
from image_service.domain.outputs import OutputName, explicit_name, parse_output_name
from image_service.domain.recipe import Recipes
from image_service.domain.status import Status
from image_service.errors import ImageNotFound, OriginalRemoved
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredThumbnail(StoredFile):
    """A stored thumbnail to serve."""

    explicit_name: str
    """The output with the extension of its format, such as ``hero@2x.jpg``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnails:
    """What one name of a thumbnail stands for."""

    files: tuple[StoredThumbnail, ...]
    """The default, and what may be served in its place; empty if there is none."""
    negotiable: bool
    """Whether the client's choice of formats decides which of the files is served."""
    missing: str | None = None
    """Why there is none, and what to do; None: it is not known."""


class Lookup:
    """Reads images and files.

    Args:
        database: Where images are recorded.
        storage: Where their files are.
        recipes: Which of them negotiate formats.
        presigned_urls: Given if clients get files from the storage directly.
    """

    def __init__(
        self, *, database: Database, storage: Storage, recipes: Recipes, presigned_urls: PresignedUrls | None = None
    ) -> None:
        self._database = database
        self._storage = storage
        self._recipes = recipes
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

    async def thumbnails(self, image_id: UUID, name: str) -> Thumbnails:
        """Returns what is stored under a name, of an image in any state. Also raises what ``image`` raises.

        Args:
            image_id: The image.
            name: That of an output, such as ``hero@2x`` or ``hero@2x.webp``; that of a default output may have the
                extension of its format.
        """
        image = await self.image(image_id)
        asked = parse_output_name(name)
        recipe = self._recipes.find(image.recipe_name)
        negotiable = asked.extension is None and recipe is not None and recipe.negotiate
        found = _find(image, name)
        if found is None:
            return Thumbnails(files=(), negotiable=negotiable, missing=_reason(image, name))
        variants = _variants(image, asked) if negotiable else ()
        return Thumbnails(files=tuple(_stored(image_id, each) for each in (found, *variants)), negotiable=negotiable)

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


def _find(image: Image, name: str) -> Thumbnail | None:
    by_output = {thumbnail.output: thumbnail for thumbnail in image.thumbnails}
    if name in by_output:
        return by_output[name]
    default = by_output.get(name.rpartition(".")[0])
    return default if default is not None and explicit_name(default) == name else None


def _variants(image: Image, default: OutputName) -> Iterable[Thumbnail]:
    """Yields the same preset and pixel density in the formats that are not its default."""
    for thumbnail in image.thumbnails:
        name = parse_output_name(thumbnail.output)
        if name.extension is not None and (name.preset, name.dpr) == (default.preset, default.dpr):
            yield thumbnail


def _stored(image_id: UUID, thumbnail: Thumbnail) -> StoredThumbnail:
    name = explicit_name(thumbnail)
    return StoredThumbnail(
        key=thumbnail.key,
        name=f"{image_id}-{name}",
        explicit_name=name,
        content_type=thumbnail.content_type,
        size_bytes=thumbnail.size_bytes,
        sha256=thumbnail.sha256,
    )


def _reason(image: Image, name: str) -> str | None:
    if name in image.pending:
        return "This thumbnail is not made yet: it follows. The image's status shows it as pending until then."
    if name in image.left_out:
        return (
            "This thumbnail is left out, because another is as good and no larger. The image's status lists those that "
            "there are."
        )
    return None
