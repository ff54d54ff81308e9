"""Containers of AVIF written box by box around an encoder's pictures (ISO 23008-12, AV1 Image File Format 1.1)."""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.images import box

_ESSENTIAL: Final = 0x80
_COLOUR_DESCRIPTION: Final = struct.Struct(">HHHB")


class Picture(NamedTuple):
    """A coded picture and what a decoder needs to know of it."""

    configuration: bytes
    """The content of av1C."""
    data: bytes
    """A sequence header and a frame."""


def picture_in(content: bytes) -> Picture:
    """Return the only picture of an encoder's file."""
    at = content.index(b"av1C")
    (length,) = struct.unpack_from(">I", content, at - 4)
    start = content.index(b"mdat") + 4
    return Picture(content[at + 4 : at - 4 + length], content[start:])


def nclx(primaries: int, transfer: int, matrix: int, *, full: bool = True) -> bytes:
    """Return colr with numbers of ITU-T H.273."""
    return box(b"colr", b"nclx", _COLOUR_DESCRIPTION.pack(primaries, transfer, matrix, 0x80 * full))


def colr(profile: bytes, kind: bytes = b"prof") -> bytes:
    """Return colr with an ICC profile."""
    return box(b"colr", kind, profile)


def write(
    picture: Picture, width: int, height: int, properties: Sequence[bytes] = (), *, metadata: bytes = b""
) -> bytes:
    """Return a file of the picture with properties, in this order, and perhaps an EXIF item."""
    listed = (
        box(b"ispe", bytes(4), struct.pack(">II", width, height)),
        box(b"av1C", picture.configuration),
        *properties,
    )
    transforming = {b"irot", b"imir", b"clap", b"av1C"}
    places = bytes(
        place | (_ESSENTIAL if each[4:8] in transforming else 0) for place, each in enumerate(listed, start=1)
    )
    association = struct.pack(">IIHB", 0, 1, 1, len(places)) + places
    items = [(1, b"av01", picture.data)] + ([(2, b"Exif", metadata)] if metadata else [])
    entries = [box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", number, 0, kind), b"\0") for number, kind, _ in items]
    reference = box(b"iref", bytes(4), box(b"cdsc", struct.pack(">HHH", 2, 1, 1))) if metadata else b""

    def head(start: int) -> bytes:
        """Return the boxes before the data, which begins at ``start``."""
        extents, position = b"", start
        for number, _, data in items:
            extents += struct.pack(">HHHII", number, 0, 1, position, len(data))
            position += len(data)
        return box(b"ftyp", b"avif\0\0\0\0avifmif1miaf") + box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", 1)),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", len(items)), extents),
            box(b"iinf", bytes(4), struct.pack(">H", len(entries)), *entries),
            reference,
            box(b"iprp", box(b"ipco", *listed), box(b"ipma", association)),
        )

    start = len(head(0)) + 8
    return head(start) + box(b"mdat", *(data for _, _, data in items))
