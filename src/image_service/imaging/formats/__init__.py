"""Image formats as files, without a decoder: one bounded reader of each container, and what is read with it.

Each module has a generator or function that reads the container's parts (segments, chunks, blocks, boxes, entries)
once, in a number of steps that no file can raise, and on top of it:

- ``dimensions``: width and height as stored, from the header of a file that may still be on disk;
- ``metadata``: the metadata that the file carries;
- ``colour`` and ``exif``: what it says about its colours, and how it is to be turned, where browsers look for that;
- ``strip``: the file without what its picture does not need, for formats whose decoders would parse that;
- ``frames``: the frames of an animation, each as a file of its own.

Nothing here imports an image library: the API process inspects uploads and must never load a decoder for it.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from types import ModuleType
from typing import Final

from image_service.domain.image import ImageFormat, MetadataKind
from image_service.imaging.formats import (
    apng,
    bmp,
    gif,
    gif_frames,
    heif,
    heif_colour,
    heif_size,
    jpeg,
    jxl,
    png,
    tiff,
    webp,
    webp_frames,
)
from image_service.imaging.formats.animation import Frame, Outline
from image_service.imaging.formats.colour import Signal
from image_service.imaging.formats.content import Content
from image_service.imaging.formats.metadata import Metadata

_DIMENSIONS: Final[dict[ImageFormat, Callable[[Content], tuple[int, int]]]] = {
    ImageFormat.JPEG: jpeg.dimensions,
    ImageFormat.PNG: png.dimensions,
    ImageFormat.GIF: gif.dimensions,
    ImageFormat.WEBP: webp.dimensions,
    ImageFormat.AVIF: heif_size.dimensions,
    ImageFormat.HEIC: heif_size.dimensions,
    ImageFormat.JXL: jxl.dimensions,
    ImageFormat.TIFF: tiff.dimensions,
    ImageFormat.BMP: bmp.dimensions,
}
_METADATA: Final[dict[ImageFormat, Callable[[bytes], Iterator[Metadata]]]] = {
    ImageFormat.JPEG: jpeg.metadata,
    ImageFormat.PNG: png.metadata,
    ImageFormat.GIF: gif.metadata,
    ImageFormat.WEBP: webp.metadata,
    ImageFormat.AVIF: heif.metadata,
    ImageFormat.HEIC: heif.metadata,
    ImageFormat.JXL: jxl.metadata,
    ImageFormat.TIFF: tiff.metadata,
}
_COLOUR: Final[dict[ImageFormat, Callable[[bytes], Iterator[Signal]]]] = {
    ImageFormat.JPEG: jpeg.colour,
    ImageFormat.PNG: png.colour,
    ImageFormat.WEBP: webp.colour,
    ImageFormat.AVIF: heif_colour.colour,
    ImageFormat.HEIC: heif_colour.colour,
    ImageFormat.TIFF: tiff.colour,
    ImageFormat.BMP: bmp.colour,
}
_EXIF: Final[dict[ImageFormat, Callable[[bytes], bytes]]] = {
    ImageFormat.JPEG: jpeg.exif,
    ImageFormat.PNG: png.exif,
}
"""Not WebP, whose EXIF browsers do not read."""
_TURNED_BY_DECODERS: Final = frozenset({ImageFormat.AVIF, ImageFormat.HEIC, ImageFormat.JXL, ImageFormat.TIFF})
_STRIP: Final[dict[ImageFormat, Callable[[bytes], bytes]]] = {
    ImageFormat.JPEG: jpeg.strip,
    ImageFormat.PNG: png.strip,
    ImageFormat.GIF: gif.strip,
    ImageFormat.TIFF: tiff.strip,
}
_ANIMATED: Final[dict[ImageFormat, ModuleType]] = {
    ImageFormat.GIF: gif_frames,
    ImageFormat.PNG: apng,
    ImageFormat.WEBP: webp_frames,
}
_HIDDEN_IN_XMP: Final = {b"GPSLatitude": MetadataKind.GPS, b"xmpGImg:image": MetadataKind.THUMBNAIL}


def read_dimensions(content: Content, image_format: ImageFormat) -> tuple[int, int]:
    """Return width and height in pixels, as stored.

    Args:
        content: A file, of which only the header is read.
        image_format: The format that its first bytes have.

    Raises:
        CorruptImage: the header is damaged or incomplete.
        ImageTooLarge: the header shows that decoding takes too many steps.
    """
    return _DIMENSIONS[image_format](content)


def find_metadata(content: bytes, image_format: ImageFormat) -> tuple[MetadataKind, ...]:
    """Return the kinds of metadata in a file, in the order of the enumeration; those without a known label are missed.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    if image_format not in _METADATA:
        return ()
    first: dict[MetadataKind, slice] = {}
    for kind, start, end in _METADATA[image_format](content):
        first.setdefault(kind, slice(start, end))
    found = set(first)
    if MetadataKind.EXIF in first:
        exif = content[first[MetadataKind.EXIF]].removeprefix(b"Exif\0\0")
        found |= {each.kind for each in tiff.metadata(exif)}
    if MetadataKind.XMP in first:
        packet = content[first[MetadataKind.XMP]]
        found |= {kind for name, kind in _HIDDEN_IN_XMP.items() if name in packet}
    return tuple(kind for kind in MetadataKind if kind in found)


def read_colour(content: bytes, image_format: ImageFormat) -> tuple[Signal, ...]:
    """Return what the file says about its colours, the most important first: the first that can be used counts.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    return tuple(_COLOUR[image_format](content)) if image_format in _COLOUR else ()


def read_orientation(content: bytes, image_format: ImageFormat) -> int:
    """Return the orientation of the stored picture: 1 to 8, as in EXIF 2.32 §4.6.4; 1 where no valid one is given.

    Zero for formats whose orientation stands elsewhere: their decoders know.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    if image_format in _TURNED_BY_DECODERS:
        return 0
    return tiff.orientation(_EXIF[image_format](content)) if image_format in _EXIF else 1


def strip(content: bytes, image_format: ImageFormat) -> bytes:
    """Return the file without what its picture does not need.

    Decoders parse comments, previews, text and animation data in passing, and fail on flaws there that no viewer
    minds, or spend seconds and hundreds of megabytes on what is thrown away afterwards. The decoders of the other
    formats keep such things apart. Damage stays as it is: the decoder judges it.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    return _STRIP[image_format](content) if image_format in _STRIP else content


def read_animation(content: bytes, image_format: ImageFormat, max_frames: int) -> Outline | None:
    """Return the outline of an animation; None if the file has only one frame.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
        max_frames: After one frame more than these, no more are looked for.

    Raises:
        ImageTooLarge: its container has more parts than are read.
    """
    if image_format not in _ANIMATED:
        return None
    module = _ANIMATED[image_format]
    plays = module.plays(content)
    places = () if plays is None else tuple(islice(module.places(content), max_frames + 1))
    return Outline(plays=plays, places=places) if len(places) > 1 else None


def read_frames(content: bytes, image_format: ImageFormat) -> Iterator[Frame]:
    """Yield the frames of an animation, up to the first whose container is damaged.

    Args:
        content: A file that has an outline.
        image_format: The format it was found to have.
    """
    frames: Iterator[Frame] = _ANIMATED[image_format].frames(content)
    return frames
