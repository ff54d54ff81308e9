"""AVIF and HEIC: boxes (ISO 14496-12 §4.2), and the items and properties in them (ISO 23008-12)."""

from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple

from image_service.domain.image import ImageFormat, MetadataKind
from image_service.errors import CorruptImage
from image_service.imaging.formats.content import Content, damaged, number, take
from image_service.imaging.formats.metadata import Metadata

FAMILY: Final = "AVIF or HEIC"
"""What errors call a file of this family."""
_MAX_BOXES: Final = 4096
"""Boxes that are read; a picture of 400 tiles has about 500."""
_MAX_ITEMS: Final = 4096
"""Items whose places are read."""
_HEADER: Final = 8
_LONG_HEADER: Final = 16
_OF_META: Final = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6}
_OF_TRACKS: Final = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8, b"av01": 78, b"hvc1": 78}
_CHILDREN: Final = _OF_META | _OF_TRACKS
"""Boxes that hold others, and how many bytes stand before the first; iinf has two more after its version 0."""
_TO_METADATA: Final = frozenset({b"meta", b"iprp", b"ipco", b"iref", b"iinf"})

_BRANDS: Final = {
    ImageFormat.AVIF: frozenset({b"avif", b"avis"}),
    ImageFormat.HEIC: frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}),
}
"""The brands that name a codec, by the format that they stand for; the first of these wins where a file has both."""
_PROFILES: Final = frozenset({b"prof", b"rICC"})
_XMP: Final = b"application/rdf+xml\0"


class Box(NamedTuple):
    """A box."""

    kind: bytes
    body: int
    """Where its content begins."""
    end: int
    """At most the end of the box around it."""


class Origin(IntEnum):
    """What an item's extents count from; other numbers occur."""

    FILE = 0
    """The start of the file."""
    BOX = 1
    """The start of the ``idat`` box."""


class Item(NamedTuple):
    """An item and its places (ISO 14496-12 §8.11.3)."""

    number: int
    origin: int
    """See ``Origin``."""
    extents: tuple[tuple[int, int], ...]
    """Start and length of each; the length 0 means all that follows."""


def boxes(content: Content, entered: frozenset[bytes] = frozenset(), family: str = FAMILY) -> Iterator[Box]:
    """Yield every box, each followed by those inside it.

    Args:
        content: A file of boxes, such as AVIF, HEIC or JPEG XL.
        entered: The kinds of boxes whose inside is read.
        family: What errors call the file.

    Raises:
        CorruptImage: a box is shorter than its header, or there are more than ``_MAX_BOXES``.
    """
    areas = [(0, len(content))]
    for _ in range(_MAX_BOXES):
        while areas and areas[-1][1] - areas[-1][0] < _HEADER:
            areas.pop()
        if not areas:
            return
        position, end = areas.pop()
        box = _read_box(content, position, end, family)
        areas.append((box.end, end))
        if box.kind in entered:
            areas.append((_first_child(content, box), box.end))
        yield box
    raise damaged(family, "it has too many boxes")


def _read_box(content: Content, position: int, end: int, family: str) -> Box:
    """Return the box at ``position`` in an area that ends at ``end``."""
    head = take(content, position, _HEADER)
    size, header = int.from_bytes(head[:4]), _HEADER
    if size == 1:
        size, header = int.from_bytes(take(content, position + _HEADER, 8)), _LONG_HEADER
    elif size == 0:
        size = end - position
    if size < header:
        raise damaged(family, "a box is shorter than its own header")
    # A box that leaves its area is for the decoder to judge: what is looked for may still be there.
    return Box(head[4:], position + header, min(position + size, end))


def _first_child(content: Content, box: Box) -> int:
    wide = box.kind == b"iinf" and number(content, box.body, 1) > 0
    return box.body + _CHILDREN[box.kind] + (2 if wide else 0)


def identify(head: bytes) -> ImageFormat | None:
    """Return the format of a file that begins with ``head``, by the brands in its first box (ISO 14496-12 §4.3)."""
    if head[4:8] != b"ftyp":
        return None
    box = head[: int.from_bytes(head[:4])]
    # Bytes 12 to 16 are the minor version: a number, which could spell a brand by accident.
    brands = {box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))}
    return next((name for name, own in _BRANDS.items() if own & brands), None)


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata among the items and properties (ISO 14496-12 §8.11, ISO 23008-12 annex A)."""
    found: list[Box] = []
    with suppress(CorruptImage):
        # What stands before the damage stays in the list.
        found.extend(boxes(content, _TO_METADATA))
    places = {
        item.number: item.extents[0]
        for box in found
        if box.kind == b"iloc"
        for item in items(content, box)
        if item.extents
    }
    for kind, start, end in found:
        if kind == b"colr" and content[start : start + 4] in _PROFILES:
            yield Metadata(MetadataKind.ICC, start, end)
        elif kind == b"thmb":
            yield Metadata(MetadataKind.THUMBNAIL, start, end)
        elif kind == b"infe":
            yield from _in_item(content, content[start:end], places)


def _in_item(content: bytes, entry: bytes, places: dict[int, tuple[int, int]]) -> Iterator[Metadata]:
    wide = entry[:1] == b"\x03"
    item, kind, rest = (
        (entry[4:8], entry[10:14], entry[14:]) if wide else (entry[4:6], entry[8:12], entry[12:])
    )  # version and flags, id, protection, type
    start, length = places.get(int.from_bytes(item), (0, 0))
    end = start + length
    if kind == b"Exif":
        # The offset of the TIFF header stands first.
        yield Metadata(MetadataKind.EXIF, start + 4 + number(content, start, 4), end)
    elif kind == b"mime" and _XMP in rest:
        yield Metadata(MetadataKind.XMP, start, end)


def items(content: Content, box: Box) -> Iterator[Item]:
    """Yield the items whose places an ``iloc`` box names, ``_MAX_ITEMS`` at most."""
    version, sizes = number(content, box.body, 1), number(content, box.body + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    id_size = 4 if version > 1 else 2
    position = box.body + 6 + id_size
    for _ in range(min(number(content, box.body + 6, id_size), _MAX_ITEMS)):
        if position >= box.end:
            return
        item, position = number(content, position, id_size), position + id_size
        origin = number(content, position, 2) & 15 if version else Origin.FILE
        position += (2 if version else 0) + 2
        base, count = number(content, position, base_size), number(content, position + base_size, 2)
        position += base_size + 2
        extents = []
        for _ in range(count if index_size + offset_size + length_size else min(count, 1)):
            if position > box.end:
                break
            start = base + number(content, position + index_size, offset_size)
            extents.append((start, number(content, position + index_size + offset_size, length_size)))
            position += index_size + offset_size + length_size
        yield Item(item, origin, tuple(extents))
