"""Images, their files, and a worker's right to one."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

from image_service.domain.status import Status


class ImageFormat(StrEnum):
    """A format this service can accept, told by content alone."""

    JPEG = "jpeg"
    PNG = "png"
    GIF = "gif"
    WEBP = "webp"
    AVIF = "avif"
    HEIC = "heic"
    TIFF = "tiff"
    BMP = "bmp"

    @classmethod
    def of(cls, content_type: str) -> "ImageFormat":
        """The format that a registered media type of ours stands for."""
        return cls(content_type.removeprefix("image/"))

    @property
    def content_type(self) -> str:
        """The registered media type."""
        return f"image/{self.value}"

    @property
    def extension(self) -> str:
        """The usual file name extension, without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value


DEFAULT_FORMATS: Final = frozenset(
    {ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.GIF, ImageFormat.WEBP, ImageFormat.AVIF}
)
"""What is accepted unless a setting says otherwise: the formats that browsers show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What a file's header says, before anything is decoded."""

    format: ImageFormat
    width: int
    """Pixels, as stored: before any orientation is applied."""
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An accepted upload: stored, not yet recorded."""

    id: UUID
    header: ImageHeader
    size_bytes: int
    sha256: str
    """64 lower-case hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """One stored output of an image under a preset."""

    preset: str
    key: str
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageError:
    """Why an image ended in ERROR."""

    code: str
    """Stable and kebab-case: programs may depend on it."""
    detail: str
    """A sentence for people; it says what to do."""


class MetadataKind(StrEnum):
    """What a file may carry beside its picture; no thumbnail carries any of it."""

    EXIF = "exif"
    """Camera, time, settings."""
    GPS = "gps"
    """Where the picture was taken."""
    XMP = "xmp"
    IPTC = "iptc"
    ICC = "icc"
    """A colour profile; thumbnails are converted to sRGB, which needs none."""
    COMMENT = "comment"
    THUMBNAIL = "thumbnail"
    """A smaller or further version of the picture."""
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTraits:
    """What rendering an image found out about it."""

    placeholder: str
    """A ThumbHash in base64."""
    dominant_colour: str | None
    """As #rrggbb; None where nothing of the image can be seen."""
    metadata_removed: tuple[MetadataKind, ...]
    """What the original carries and the thumbnails do not, in the order of the enumeration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An uploaded original with everything known about it."""

    id: UUID
    status: Status
    header: ImageHeader
    size_bytes: int
    sha256: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    error: ImageError | None
    traits: ImageTraits | None = None
    """Known once the image is DONE, unless a version did it that did not look."""
    original_removed_at: datetime | None = None
    """When the original's retention ended; its file is gone."""
    thumbnails: tuple[Thumbnail, ...] = field(default=())
    """Of the newest rendering that succeeded: they stay while the image is rendered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A worker's right to process an image until its lease ends.

    ``attempt`` is the fence: it grows with every claim, and nothing that carries an older number changes the row.
    """

    image_id: UUID
    attempt: int
    attempts_charged: int
    """Claims so far that ended without a result and were nobody else's fault, this one included."""
    decoder_failures: int
    """How often the decoder has died on this image before."""
    reprocessing: bool = False
    """Whether the image was finished before, so that it may have thumbnails to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedThumbnail:
    """One output of a renderer, still in a scratch folder."""

    preset: str
    path: Path
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """Everything a renderer made of one image."""

    width: int
    """Pixels of the original, as decoded and upright (orientation applied)."""
    height: int
    thumbnails: tuple[RenderedThumbnail, ...]
    traits: ImageTraits
    timings: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    """Each step with the seconds it took, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an attempt made of an image, stored and ready to be recorded."""

    width: int
    """Pixels of the original, upright."""
    height: int
    thumbnails: tuple[Thumbnail, ...]
    traits: ImageTraits
    recipe: str
    """The fingerprint of the recipe that it followed."""
