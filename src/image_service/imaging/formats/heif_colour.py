"""AVIF and HEIC: the colours of the primary picture, as its boxes say, and its coded picture where they are silent."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from image_service.errors import CorruptImage
from image_service.imaging.formats import av1
from image_service.imaging.formats.colour import PRIMARIES, SRGB, TRANSFERS, Cicp, Signal, profile
from image_service.imaging.formats.content import number
from image_service.imaging.formats.heif import Box, boxes
from image_service.imaging.formats.heif_size import ENTERED, av1_streams

_SEQUENCE: Final = b"avis"
"""The major brand of files of which a track is decoded instead of the primary item."""
_COLOUR: Final = b"colr"
_LIGHT_LEVEL: Final = b"clli"
"""Begins with the brightness of the brightest pixel in nits."""
_TRACK_ENTRY: Final = b"av01"
_CODE_POINTS: Final = b"nclx"
_PROFILES: Final = frozenset({b"prof", b"rICC"})
_FOR_CAMERAS: Final = frozenset({1, 6, 11, 14, 15})
"""The curves of BT.601, BT.709, BT.2020 and xvYCC."""
_DEPTHS: Final = {b"av1C": (2, 0x40), b"hvcC": (17, 0x07)}
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
    properties = list(_properties(content, found))
    signalled = [box for box in properties if box.kind == _COLOUR]
    peak = next((number(content, box.body, 2) for box in properties if box.kind == _LIGHT_LEVEL), 0)
    for box in signalled:
        if content[box.body : box.body + _KIND] in _PROFILES and (
            signal := profile(content[box.body + _KIND : box.end])
        ):
            yield signal
            break
    for box in signalled:
        if content[box.body : box.body + _KIND] == _CODE_POINTS:
            at = box.body + _KIND
            yield _specified(number(content, at, 2), number(content, at + 2, 2), peak)
            return
    with suppress(CorruptImage):
        for stream in av1_streams(content, found):
            for unit in av1.units(stream):
                if coded := av1.colour(stream, unit):
                    yield _specified(*coded, peak)
                    return


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
    if content[8:12] == _SEQUENCE:
        entry = next((box for box in found if box.kind == _TRACK_ENTRY), None)
        yield from (box for box in found if entry and entry.body <= box.body and box.end <= entry.end)
        return
    container = next((box for box in found if box.kind == b"ipco"), None)
    primary = next((_primary(content, box) for box in found if box.kind == b"pitm"), None)
    if container is None or primary is None:
        return
    # None of the properties holds another box that was read.
    properties = [box for box in found if container.body < box.body and box.end <= container.end]
    for box in found:
        if box.kind == b"ipma":
            for index in _associations(content, box, primary):
                if 0 < index <= len(properties):
                    yield properties[index - 1]


def _primary(content: bytes, box: Box) -> int:
    """Return the number of the primary item (ISO 14496-12 §8.11.4)."""
    return number(content, box.body + 4, 4 if number(content, box.body, 1) else 2)


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
