"""Images, their files, and claims on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

from image_service.domain.status import Status


class ImageFormat(StrEnum):
    """A format this service can accept; detected from the content alone."""

    JPEG = "jpeg"
    PNG = "png"
    GIF = "gif"
    WEBP = "webp"
    AVIF = "avif"
    HEIC = "heic"
    JXL = "jxl"
    TIFF = "tiff"
    BMP = "bmp"

    @classmethod
    def of(cls, content_type: str) -> "ImageFormat":
        """Returns the format of a registered media type; raises ``ValueError`` for any other."""
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
"""The formats accepted by default: those that browsers display."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Format and size from a file's header, before anything is decoded."""

    format: ImageFormat
    width: int
    """Pixels, as stored: before any orientation is applied."""
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A validated upload that is not yet recorded."""

    id: UUID
    header: ImageHeader
    size_bytes: int
    sha256: str
    """64 lower-case hex digits."""
    recipe_name: str | None = None
    """None: the default recipe."""
    metadata: str | None = None
    """What the client gave with the upload, for its events."""
    webhook_id: UUID | None = None
    """The only webhook endpoint that gets its events; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """One stored output of an image."""

    output: str
    """The name of the output, such as ``300x300`` or ``hero@2x.webp``."""
    key: str
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    fingerprint: str | None = None
    """Of the output that it was made with; None: made by a version that recorded none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageError:
    """Why an image ended in ERROR."""

    code: str
    """Stable and kebab-case: programs may depend on it."""
    detail: str
    """A sentence for users; it says what to do."""


class MetadataKind(StrEnum):
    """A kind of metadata in an image file; thumbnails contain none of it."""

    EXIF = "exif"
    """Camera, time, settings."""
    GPS = "gps"
    """Where the picture was taken."""
    XMP = "xmp"
    IPTC = "iptc"
    ICC = "icc"
    """A colour profile; thumbnails are converted to sRGB and need none."""
    COMMENT = "comment"
    THUMBNAIL = "thumbnail"
    """An embedded preview or an additional image."""
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTraits:
    """Properties of an image that rendering finds."""

    placeholder: str
    """A ThumbHash in base64."""
    dominant_colour: str | None
    """As #rrggbb; None if the image is fully transparent."""
    metadata_removed: tuple[MetadataKind, ...]
    """Metadata of the original that the thumbnails do not contain, in the order of the enumeration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A recorded image: its original, its state and its thumbnails."""

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
    """Known once the image is DONE, except for images rendered by a version that did not determine them."""
    original_removed_at: datetime | None = None
    """When the original was removed because its retention period ended; None: it is kept."""
    recipe_name: str | None = None
    """The recipe it was uploaded for; None: the default one."""
    recipe: str | None = None
    """The fingerprint of the recipe that all outputs were made with; None while some are still to be made."""
    pending: tuple[str, ...] = ()
    """The names of outputs that follow, while the image is DONE."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Outputs of the recipe that are not made, by name: the fingerprint that each would have."""
    thumbnails: tuple[Thumbnail, ...] = field(default=())
    """The outputs of the last successful rendering; kept while the image is reprocessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A worker's right to process an image until its lease ends.

    ``attempt`` is the fencing token: it grows with every claim, and a write with an older number changes nothing.
    """

    image_id: UUID
    attempt: int
    attempts_charged: int
    """Claims that count against the image, this one included: those ended by an outage or a drain do not."""
    decoder_failures: int
    """How often a decoder process ended on this image before."""
    sha256: str
    """Of the original, in hex digits."""
    recipe_name: str | None = None
    """The image's recipe; None: the default one."""
    reprocessing: bool = False
    """Whether the image was finished before, and so may have thumbnails to replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedThumbnail:
    """One output of a renderer, in a scratch directory."""

    output: str
    path: Path
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str = ""
    """In hex digits. A decoder process leaves it out: the pool computes it from the bytes that it received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """The result of rendering one image."""

    width: int
    """Pixels of the original, decoded, with the orientation applied."""
    height: int
    thumbnails: tuple[RenderedThumbnail, ...]
    traits: ImageTraits
    timings: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    """Each step with its duration in seconds, in order."""
    left_out: tuple[str, ...] = ()
    """The names of the other outputs, which were not worth a file or, if optional, could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The stored outputs of an attempt, ready to be recorded."""

    width: int
    """Pixels of the original, with the orientation applied."""
    height: int
    thumbnails: tuple[Thumbnail, ...]
    traits: ImageTraits
    recipe: str | None
    """The fingerprint of the recipe used; None while optional outputs are still to be made."""
    pending: tuple[str, ...] = ()
    """The names of optional outputs that follow."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Outputs that are not made, by name: the fingerprint that each would have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateResult:
    """What an attempt on outputs that a DONE image lacked changes: all other files stay."""

    recipe: str
    """The fingerprint of the recipe that all outputs are then made with."""
    left_out: Mapping[str, str]
    """All outputs that the image is left without, by name: the fingerprint that each would have."""
    made: tuple[Thumbnail, ...] = ()
    """The stored new outputs."""
    removed: tuple[str, ...] = ()
    """The names of recorded outputs that are replaced, or that the recipe has no more."""
    known: Mapping[str, str] = field(default_factory=dict)
    """The fingerprints of outputs that stay and were recorded without one, by name."""
