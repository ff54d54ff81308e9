"""AVIF and HEIC: the colours of the primary picture, as its boxes say, and its coded picture where they are silent."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from image_service.errors import CorruptImage
from image_service.imaging.formats import av1, hevc
from image_service.imaging.formats.colour import PRIMARIES, SRGB, TRANSFERS, Cicp, Signal, profile
from image_service.imaging.formats.content import Content, number
from image_service.imaging.formats.heif import Box, boxes
from image_service.imaging.formats.heif_size import ENTERED, av1_item, av1_streams
from image_service.imaging.limits import MAX_PROFILE_BYTES

_SEQUENCE: Final = b"avis"
"""The major brand of files of which a track is decoded instead of the primary item."""
_COLOUR: Final = b"colr"
_LIGHT_LEVEL: Final = b"clli"
"""Begins with the brightness of the brightest pixel in nits."""
_MAJOR_BRAND: Final = slice(8, 12)
_TRACK_ENTRY: Final = b"av01"
_PLACES: Final = frozenset({b"infe", b"iloc", b"idat"})
"""Boxes that say what items are, and where."""
_CODE_POINTS: Final = b"nclx"
_PROFILES: Final = frozenset({b"prof", b"rICC"})
_FOR_CAMERAS: Final = frozenset({1, 6, 11, 14, 15})
"""The curves of BT.601, BT.709, BT.2020 and xvYCC."""
_HEVC_CONFIGURATION: Final = b"hvcC"
_DEPTHS: Final = {b"av1C": (2, 0x40), _HEVC_CONFIGURATION: (17, 0x07)}
"""Where in a configuration box the depth stands, and the bits that are zero for eight bits a sample."""
_KIND: Final = 4
_MAX_ASSOCIATIONS: Final = 4096
"""Items whose properties are read; a picture of 400 tiles has 402."""


def colour(content: bytes) -> Iterator[Signal]:
    """Yield what the file says about the colours of its picture, the most important first.

    A profile stands above the code points, as in browsers (ISO 23008-12 §6.5.5 allows one of each).
    """
    found: list[Box] = []
    with suppress(CorruptImage):
        # What stands before the damage stays in the list.
        found.extend(boxes(content, ENTERED))
    # Once each, however often the file names it: a profile takes a copy.
    properties = dict.fromkeys(_properties(content, found))
    signalled = [box for box in properties if box.kind == _COLOUR]
    peak = next((number(content, box.body, 2) for box in properties if box.kind == _LIGHT_LEVEL), 0)
    for box in signalled:
        if content[box.body : box.body + _KIND] in _PROFILES and (
            signal := profile(content[box.body + _KIND : min(box.end, box.body + _KIND + MAX_PROFILE_BYTES + 1)])
        ):
            yield signal
            break
    for box in signalled:
        if content[box.body : box.body + _KIND] == _CODE_POINTS:
            at = box.body + _KIND
            yield _specified(number(content, at, 2), number(content, at + 2, 2), peak)
            return
    yield from (_specified(*coded, peak) for coded in _coded(content, found))


def _coded(content: bytes, found: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Yield the code points that coded pictures give, of the primary item first."""
    with suppress(CorruptImage):
        for stream in _streams(content, found):
            for unit in av1.units(stream):
                if points := av1.colour(stream, unit):
                    yield points
                    return
    for box in found:
        if box.kind == _HEVC_CONFIGURATION:
            yield from hevc.colours(content, box.body, box.end)


def has_high_depth(content: bytes) -> bool:
    """Whether a picture in the file has more than eight bits a sample (AV1-ISOBMFF §2.3.3, ISO 14496-15 §8.3.3.1)."""
    found: list[Box] = []
    with suppress(CorruptImage):
        found.extend(boxes(content, ENTERED))
    flags = (
        number(content, box.body + _DEPTHS[box.kind][0], 1) & _DEPTHS[box.kind][1]
        for box in found
        if box.kind in _DEPTHS
    )
    return any(flags)


def _specified(primaries: int, transfer: int, peak: float) -> Cicp:
    """Return the code points with those of sRGB where one is unspecified or unknown (ISO 23000-22 §7.3.6.4).

    Also where the curve is one for cameras, those of BT.601, BT.709 and BT.2020, as browsers do.
    """
    return Cicp(
        primaries if primaries in PRIMARIES else SRGB.primaries,
        transfer if transfer in TRANSFERS - _FOR_CAMERAS else SRGB.transfer,
        peak,
    )


def _properties(content: bytes, found: Sequence[Box]) -> Iterator[Box]:
    """Yield the properties of the primary item, or what describes the first track of a sequence."""
    if content[_MAJOR_BRAND] == _SEQUENCE and (movie := _child(found, _whole(content), b"moov")):
        entry = next((box for box in found if box.kind == _TRACK_ENTRY and _is_inside(box, movie)), None)
        yield from _children(found, entry)
        return
    primary, described = _primary(content, found), _child(found, _meta(content, found), b"iprp")
    properties = list(_children(found, _child(found, described, b"ipco")))
    for box in _children(found, described):
        if box.kind == b"ipma":
            for index in _associations(content, box, primary):
                if 0 < index <= len(properties):
                    yield properties[index - 1]


def _streams(content: bytes, found: Sequence[Box]) -> Iterator[Content]:
    """Yield the coded picture of the primary item, then all others: some are the tiles that it may be made of."""
    primary = _primary(content, found)
    own = [box for box in found if box.kind != b"infe" or primary in av1_item(content, box)]
    return chain(av1_streams(content, [box for box in own if box.kind in _PLACES]), av1_streams(content, found))


def _primary(content: bytes, found: Sequence[Box]) -> int:
    """Return the number of the primary item (ISO 14496-12 §8.11.4); -1 where none is named."""
    box = _child(found, _meta(content, found), b"pitm")
    return number(content, box.body + 4, 4 if number(content, box.body, 1) else 2) if box else -1


def _meta(content: bytes, found: Sequence[Box]) -> Box | None:
    """Return the box of the file's items; tracks may have one of their own."""
    return _child(found, _whole(content), b"meta")


def _whole(content: bytes) -> Box:
    """Return the file as a box around all others."""
    return Box(b"", 0, len(content))


def _child(found: Iterable[Box], parent: Box | None, kind: bytes) -> Box | None:
    """Return the first box of this kind that stands directly in the parent."""
    return next((box for box in _children(found, parent) if box.kind == kind), None)


def _children(found: Iterable[Box], parent: Box | None) -> Iterator[Box]:
    """Yield the boxes that stand directly in the parent: what others hold may have the same names."""
    end = 0
    for box in found:
        if parent and _is_inside(box, parent) and box.body >= end:
            end = box.end
            yield box


def _is_inside(box: Box, parent: Box) -> bool:
    return parent.body < box.body and box.end <= parent.end


def _associations(content: bytes, box: Box, item: int) -> Iterator[int]:
    """Yield the indices of the item's properties, counted from one (ISO 23008-12 §9.3)."""
    id_size = 4 if number(content, box.body, 1) else 2
    size = 2 if number(content, box.body + 3, 1) & 1 else 1
    position = box.body + 8
    for _ in range(min(number(content, box.body + 4, 4), _MAX_ASSOCIATIONS)):
        if position >= box.end:
            return
        current, count = number(content, position, id_size), number(content, position + id_size, 1)
        position += id_size + 1
        if current == item:
            # The highest bit says that a reader has to know the property.
            for at in range(position, min(position + count * size, box.end), size):
                yield number(content, at, size) & ((1 << (8 * size - 1)) - 1)
        position += count * size
