"""AVIF and HEIC: the size of the largest picture in a file, as its boxes and as its coded pictures themselves say.

Decoders allocate what the coded picture announces, and scale the result to the size in the boxes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from image_service.imaging.formats import av1, hevc
from image_service.imaging.formats.content import Content, Pieces, damaged, number, take
from image_service.imaging.formats.heif import FAMILY, Box, Origin, boxes, items

ENTERED: Final = frozenset(
    {b"meta", b"iinf", b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01", b"hvc1"}
)
"""Boxes whose inside is read."""
_EXTENTS: Final = b"ispe"
_TRACK_HEADER: Final = b"tkhd"
_AV1_CONFIGURATION: Final = b"av1C"
_HEVC_CONFIGURATION: Final = b"hvcC"
_AV1_ITEM: Final = b"av01"
_TABLES: Final = frozenset({b"iloc", b"iinf", b"iref", b"ipma", b"stts", b"stsc", b"stsz", b"stco", b"co64"})
_MAX_TABLE: Final = 128 * 1024
"""Bytes of the tables of one kind, of items or samples; one of 400 tiles has 7,000. libavif looks each entry up in a
list of all."""
_MAX_UNITS: Final = 8192
"""Units of AV1 streams that are read in all; an item has two or three."""
_PADDING: Final = 63
"""Pixels a side by which an HEVC picture may exceed what is shown of it: it consists of blocks of up to 64 pixels."""
_AV1_CONFIGURATION_HEAD: Final = 4
_CHUNK_OFFSETS: Final = {b"stco": 4, b"co64": 8}
"""The length of a position, by the box that holds positions of a track's samples."""


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels of the largest image or track that the file declares or holds.

    The largest, not the primary one: it bounds what a decoder may allocate, and finding the primary item would mean
    to trust three more boxes. Sizes: image spatial extents (ISO 23008-12 §6.5.3), track headers (ISO 14496-12 §8.3.2),
    and the headers of the coded pictures. HEVC pictures are taken from the configuration boxes alone.

    Raises:
        CorruptImage: no size is declared, or the boxes make no sense.
    """
    found = list(boxes(content, ENTERED))
    tables: Counter[bytes] = Counter()
    for box in found:
        if box.kind in _TABLES:
            tables[box.kind] += box.end - box.body
    if any(size > _MAX_TABLE for size in tables.values()):
        raise damaged(FAMILY, "it has too many items or samples")
    declared = [_declared_size(content, box) for box in found if box.kind in {_EXTENTS, _TRACK_HEADER}]
    if not declared:
        raise damaged(FAMILY, "it does not say how large the image is")
    return max((*declared, *_coded_sizes(content, found)), key=lambda size: size[0] * size[1])


def _declared_size(content: Content, box: Box) -> tuple[int, int]:
    if box.kind == _EXTENTS:
        size = take(content, box.body + 4, 8)
        return int.from_bytes(size[:4]), int.from_bytes(size[4:])
    # A track header ends with width and height as 16.16 fixed-point numbers, whatever its version.
    size = take(content, max(box.body, box.end - 8), 8)
    return int.from_bytes(size[:4]) >> 16, int.from_bytes(size[4:]) >> 16


def _coded_sizes(content: Content, found: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Yield the sizes in the headers of coded pictures.

    Raises:
        CorruptImage: they have more than ``_MAX_UNITS`` units.
    """
    for box in found:
        if box.kind == _HEVC_CONFIGURATION:
            for width, height in hevc.picture_sizes(content, box.body, box.end):
                yield max(0, width - _PADDING), max(0, height - _PADDING)
    count = 0
    for stream in av1_streams(content, found):
        for unit in av1.units(stream):
            count += 1
            if count > _MAX_UNITS:
                raise damaged(FAMILY, "its pictures consist of too many units")
            if size := av1.frame_size(stream, unit):
                yield size


def av1_streams(content: Content, found: Sequence[Box]) -> Iterator[Content]:
    """Yield every configuration, every item and the first sample of every track, as far as they are AV1."""
    av1_items = {item for box in found if box.kind == b"infe" for item in av1_item(content, box)}
    idat = next((box.body for box in found if box.kind == b"idat"), 0)
    for box in found:
        if box.kind == _AV1_CONFIGURATION:
            yield Pieces(content, [(box.body + _AV1_CONFIGURATION_HEAD, box.end)])
        elif box.kind == b"iloc":
            for item in items(content, box):
                if item.number in av1_items and item.origin in {Origin.FILE, Origin.BOX}:
                    base = idat if item.origin == Origin.BOX else 0
                    places = [(base + start, length or len(content)) for start, length in item.extents]
                    yield Pieces(content, [(start, start + length) for start, length in places])
    yield from _first_samples(content, found)


def av1_item(content: Content, box: Box) -> Iterator[int]:
    """Yield the number of the item that the entry describes, if its picture is coded in AV1 (ISO 14496-12 §8.11.6)."""
    size = 4 if number(content, box.body, 1) > 2 else 2  # noqa: PLR2004 — the version with wide numbers is 3
    if content[box.body + 6 + size : box.body + 10 + size] == _AV1_ITEM:
        yield number(content, box.body + 4, size)


def _first_samples(content: Content, found: Sequence[Box]) -> Iterator[Content]:
    """Yield the first sample of each track of AV1 pictures; no other is decoded (ISO 14496-12 §8.7)."""
    starts = [index for index, box in enumerate(found) if box.kind == b"trak"]
    for start, end in pairwise([*starts, len(found)]):
        track = {box.kind: box for box in found[start:end]}
        offsets = next((track[kind] for kind in _CHUNK_OFFSETS if kind in track), None)
        if _AV1_CONFIGURATION in track and b"stsz" in track and offsets:
            # One size for all samples, or zero and the size of each.
            sizes = track[b"stsz"].body
            size = number(content, sizes + 4, 4) or number(content, sizes + 12, 4)
            at = number(content, offsets.body + 8, _CHUNK_OFFSETS[offsets.kind])
            yield Pieces(content, [(at, at + size)])
