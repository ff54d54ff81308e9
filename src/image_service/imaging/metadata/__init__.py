"""What a file carries beside its picture: told by its labels, without a decoder, and believing no length in it."""

from collections.abc import Callable, Iterator
from typing import Final

from image_service.domain.image import ImageFormat, MetadataKind
from image_service.imaging.metadata import gif, heif, jpeg, png, tiff, webp
from image_service.imaging.metadata.label import Label

_LABELS: Final[dict[ImageFormat, Callable[[bytes], Iterator[Label]]]] = {
    ImageFormat.JPEG: jpeg.labels,
    ImageFormat.PNG: png.labels,
    ImageFormat.GIF: gif.labels,
    ImageFormat.WEBP: webp.labels,
    ImageFormat.AVIF: heif.labels,
    ImageFormat.HEIC: heif.labels,
    ImageFormat.TIFF: tiff.labels,
}
_HIDDEN_IN_XMP: Final = {b"GPSLatitude": MetadataKind.GPS, b"xmpGImg:image": MetadataKind.THUMBNAIL}


def find_metadata(content: bytes, image_format: ImageFormat) -> tuple[MetadataKind, ...]:
    """The kinds of metadata in a file, in the order of the enumeration; what bears no known label is not found.

    Takes a number of steps that no file can raise.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    if image_format not in _LABELS:
        return ()
    first: dict[MetadataKind, slice] = {}
    for kind, place in _LABELS[image_format](content):
        first.setdefault(kind, place)
    found = set(first)
    if MetadataKind.EXIF in first:
        exif = content[first[MetadataKind.EXIF]].removeprefix(b"Exif\0\0")
        found |= {kind for kind, _ in tiff.labels(exif)}
    if MetadataKind.XMP in first:
        packet = content[first[MetadataKind.XMP]]
        found |= {kind for name, kind in _HIDDEN_IN_XMP.items() if name in packet}
    return tuple(kind for kind in MetadataKind if kind in found)
