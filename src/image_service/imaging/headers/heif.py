"""AVIF and HEIC: image spatial extents and track headers (ISO 23008-12 §6.5.3, ISO 14496-12 §8.3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

_FAMILY: Final = "AVIF or HEIC"
_CONTAINERS: Final = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0}
"""Boxes that lead to a size, and how many bytes stand before their first child."""
_EXTENTS: Final = b"ispe"
_TRACK_HEADER: Final = b"tkhd"
_MAX_BOXES: Final = 1024


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    content: int
    """Where its content begins, in bytes from the start of the file."""
    end: int


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels of the largest image or track that the file declares.

    The largest, not the primary one: it bounds what a decoder may allocate, and finding the primary item would mean
    to trust three more boxes.

    Raises:
        CorruptImage: no size is declared, or the boxes make no sense.
    """
    sizes = [_declared_size(reader, box) for box in _boxes(reader) if box.kind in {_EXTENTS, _TRACK_HEADER}]
    if not sizes:
        raise damaged(_FAMILY, "it does not say how large the image is")
    return max(sizes, key=lambda size: size[0] * size[1])


def _declared_size(reader: Reader, box: _Box) -> tuple[int, int]:
    if box.kind == _EXTENTS:
        reader.seek(box.content + 4)
        return reader.number(4), reader.number(4)
    # A track header ends with width and height as 16.16 fixed-point numbers, whatever its version.
    reader.seek(max(box.content, box.end - 8))
    return reader.number(4) >> 16, reader.number(4) >> 16


def _boxes(reader: Reader) -> Iterator[_Box]:
    """Every box on the way to a size; each costs the file at least 8 bytes and us one step of a fixed number."""
    areas = [(0, reader.size)]
    for _ in range(_MAX_BOXES):
        while areas and areas[-1][1] - areas[-1][0] < 8:  # noqa: PLR2004 — too little for a box header
            areas.pop()
        if not areas:
            return
        position, end = areas.pop()
        box = _box_at(reader, position, end)
        areas.append((box.end, end))
        if box.kind in _CONTAINERS:
            areas.append((box.content + _CONTAINERS[box.kind], box.end))
        yield box
    raise damaged(_FAMILY, "it has too many boxes")


def _box_at(reader: Reader, position: int, end: int) -> _Box:
    """The box at ``position`` in an area that ends at ``end`` (ISO 14496-12 §4.2)."""
    reader.seek(position)
    size, kind, header = reader.number(4), reader.take(4), 8
    if size == 1:
        size, header = reader.number(8), 16
    elif size == 0:
        size = end - position
    if size < header:
        raise damaged(_FAMILY, "a box is shorter than its own header")
    # A box that leaves its area is the decoder's business: the sizes may still be all there.
    return _Box(kind, position + header, min(position + size, end))
