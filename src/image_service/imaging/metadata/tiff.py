"""TIFF directories, which are also what EXIF is made of (TIFF 6.0 §2, EXIF 2.32 §4.6)."""

from collections.abc import Iterator
from typing import Final, Literal

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label

_ORDERS: Final[dict[bytes, Literal["little", "big"]]] = {b"II": "little", b"MM": "big"}
_GPS: Final = 0x8825
_GPS_VERSION: Final = 0
_KINDS: Final = {
    0x010E: MetadataKind.EXIF,  # ImageDescription
    0x010F: MetadataKind.EXIF,  # Make
    0x0110: MetadataKind.EXIF,  # Model
    0x0132: MetadataKind.EXIF,  # DateTime
    0x013B: MetadataKind.EXIF,  # Artist
    0x02BC: MetadataKind.XMP,
    0x8298: MetadataKind.EXIF,  # Copyright
    0x83BB: MetadataKind.IPTC,
    0x8769: MetadataKind.EXIF,  # a directory of its own
    0x8773: MetadataKind.ICC,
}
_ENTRY: Final = 12
_VALUE: Final = 8
"""Where in an entry its value stands."""


def labels(content: bytes) -> Iterator[Label]:
    """What the first directory names; one that follows it describes a thumbnail, or in a TIFF file another page."""
    order = _ORDERS.get(content[:2])
    if order is None:
        return

    def number(at: int, length: int) -> int:
        return int.from_bytes(content[at : at + length], order)

    def entries(directory: int) -> dict[int, int]:
        places = (directory + 2 + index * _ENTRY for index in range(min(number(directory, 2), MAX_STEPS)))
        return {number(at, 2): number(at + _VALUE, 4) for at in places}

    first = number(4, 4)
    tags, nowhere = entries(first), slice(0, 0)
    yield from ((kind, nowhere) for tag, kind in _KINDS.items() if tag in tags)
    # Many cameras write an empty directory, with no more than the version in it.
    if _GPS in tags and entries(tags[_GPS]).keys() - {_GPS_VERSION}:
        yield MetadataKind.GPS, nowhere
    following = number(first + 2 + number(first, 2) * _ENTRY, 4)
    if following and number(following, 2):
        yield MetadataKind.THUMBNAIL, nowhere
