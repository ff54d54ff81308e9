"""AVIF and HEIC: items and properties of the meta box (ISO 14496-12 §8.11, ISO 23008-12 annex A)."""

from collections.abc import Iterator
from typing import Final

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label

_CHILDREN: Final = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4}
"""Boxes that are looked into, and how many bytes stand before their first child."""
_PROFILES: Final = frozenset({b"prof", b"rICC"})
_XMP: Final = b"application/rdf+xml\0"


def labels(content: bytes) -> Iterator[Label]:
    """What the file's items and properties are said to be."""
    boxes = list(_boxes(content, 0, len(content)))
    places = {
        item: place for kind, start, end in boxes if kind == b"iloc" for item, place in _places(content, start, end)
    }
    for kind, start, end in boxes:
        if kind == b"colr" and content[start : start + 4] in _PROFILES:
            yield MetadataKind.ICC, slice(start, end)
        elif kind == b"thmb":
            yield MetadataKind.THUMBNAIL, slice(start, end)
        elif kind == b"infe":
            yield from _in_item(content, content[start:end], places)


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of every box on the way to what is looked for."""
    areas = [(start, end)]
    for _ in range(MAX_STEPS):
        while areas and areas[-1][1] - areas[-1][0] < 8:  # noqa: PLR2004 — too little for a box header
            areas.pop()
        if not areas:
            return
        position, end = areas.pop()
        size, kind, header = _number(content, position, 4), content[position + 4 : position + 8], 8
        if size == 1:
            size, header = _number(content, position + 8, 8), 16
        stop = min(position + size, end) if size else end
        areas.append((max(stop, position + header), end))
        inside = position + header
        if kind in _CHILDREN:
            areas.append((inside + _CHILDREN[kind], stop))
        elif kind == b"iinf":
            # The number of entries stands first, in two bytes or four.
            areas.append((inside + (8 if _number(content, inside, 1) else 6), stop))
        yield kind, inside, stop


def _in_item(content: bytes, entry: bytes, places: dict[int, tuple[int, int]]) -> Iterator[Label]:
    wide = entry[:1] == b"\x03"
    item, kind, rest = (
        (entry[4:8], entry[10:14], entry[14:]) if wide else (entry[4:6], entry[8:12], entry[12:])
    )  # version and flags, id, protection, type
    start, end = places.get(int.from_bytes(item), (0, 0))
    if kind == b"Exif":
        # Where its TIFF header begins stands first.
        yield MetadataKind.EXIF, slice(start + 4 + _number(content, start, 4), end)
    elif kind == b"mime" and _XMP in rest:
        yield MetadataKind.XMP, slice(start, end)


def _places(content: bytes, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Every item's id, and start and end of its first piece."""
    version, sizes = _number(content, start, 1), _number(content, start + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    id_size = 4 if version > 1 else 2
    position = start + 6 + id_size
    for _ in range(min(_number(content, start + 6, id_size), MAX_STEPS)):
        if position >= end:
            return
        item, base_at = _number(content, position, id_size), position + id_size + (4 if version else 2)
        count_at = base_at + base_size
        first = count_at + 2 + index_size
        offset = _number(content, base_at, base_size) + _number(content, first, offset_size)
        yield item, (offset, offset + _number(content, first + offset_size, length_size))
        position = count_at + 2 + _number(content, count_at, 2) * (index_size + offset_size + length_size)


def _number(content: bytes, at: int, length: int) -> int:
    return int.from_bytes(content[at : at + length])
