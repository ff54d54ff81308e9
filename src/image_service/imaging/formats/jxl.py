"""JPEG XL: the codestream's header (ISO/IEC 18181-1), bare or in boxes (18181-2).

The header's fields are those of libjxl's ``SizeHeader`` and ``ImageMetadata``, which the standard describes in its
clauses on image headers. What comes after them is compressed, and is left to the decoder.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.errors import CorruptImage
from image_service.imaging.formats.bits import BitsFromLeast
from image_service.imaging.formats.content import Content, Pieces, cut_off, damaged, number, too_many
from image_service.imaging.formats.heif import boxes
from image_service.imaging.formats.metadata import Metadata

CODESTREAM: Final = b"\xff\x0a"
"""What a codestream begins with."""
CONTAINER: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
"""What a file of boxes begins with."""

_NAME: Final = "JPEG XL"
_PART_HEAD: Final = 4
"""Bytes in front of a part of the codestream in a ``jxlp`` box: its number."""
_LONGEST_START: Final = 64
"""Bytes of a codestream's header that are read for the size and the number of channels, which fit in 40."""
_LONGEST_HEADER: Final = 8192
"""Bytes of a codestream's header that are searched for a profile; one of 256 named channels has about 5,000."""
_MAX_EXTRA_CHANNELS: Final = 256
"""Channels beside the colours, by the highest level of the standard (18181-1 annex M). Each is a picture of its own."""
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, by their number in the header from 1 on."""

_EXIF: Final = b"Exif"
_KINDS: Final = {_EXIF: MetadataKind.EXIF, b"xml ": MetadataKind.XMP}
_COMPRESSED: Final = b"brob"
"""A box with the content of another in Brotli, after the kind of that."""
_TIFF_OFFSET: Final = 4
"""Bytes in front of the TIFF file in an Exif box."""

_Distribution = tuple[tuple[int, int], ...]
"""Of a number: for each value of a selector of two bits, how many bits follow, and what is added to them."""
_SIDE: Final[_Distribution] = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW_SIDE: Final[_Distribution] = ((6, 1), (8, 65), (10, 321), (12, 1345))
_PREVIEW_BLOCKS: Final[_Distribution] = ((0, 16), (0, 32), (5, 1), (9, 33))
_ENUM: Final[_Distribution] = ((0, 0), (0, 1), (4, 2), (6, 18))
_TICKS: Final[_Distribution] = ((0, 100), (0, 1000), (10, 1), (30, 1))
_TICKS_DIVISOR: Final[_Distribution] = ((0, 1), (0, 1001), (8, 1), (10, 1))
_LOOPS: Final[_Distribution] = ((0, 0), (3, 0), (16, 0), (32, 0))
_INTEGER_DEPTH: Final[_Distribution] = ((0, 8), (0, 10), (0, 12), (6, 1))
_FLOAT_DEPTH: Final[_Distribution] = ((0, 32), (0, 16), (0, 24), (6, 1))
_EXTRA_CHANNELS: Final[_Distribution] = ((0, 0), (0, 1), (4, 2), (12, 1))
_SHIFT: Final[_Distribution] = ((0, 0), (0, 3), (0, 4), (3, 1))
_NAME_LENGTH: Final[_Distribution] = ((0, 0), (4, 0), (5, 16), (10, 48))
_COLOUR_FILTER: Final[_Distribution] = ((0, 1), (2, 0), (4, 3), (8, 19))

_ALPHA, _SPOT, _FILTER = 0, 2, 5
"""Kinds of extra channels that have a field of their own."""


class Header(NamedTuple):
    """What the header says, up to the number of channels."""

    width: int
    """Pixels, as stored."""
    height: int
    extra_channels: int
    """Channels beside the colours, such as alpha."""
    has_preview: bool
    is_default: bool
    """Whether nothing is said beyond the size."""


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels, as stored: before the orientation, which the header has too, is applied.

    Raises:
        CorruptImage: the header is damaged or cut off.
        ImageTooLarge: it has more than ``_MAX_EXTRA_CHANNELS`` channels beside the colours.
    """
    header = read_header(content)
    return header.width, header.height


def read_header(content: Content) -> Header:
    """Return the header of the codestream; see ``dimensions`` for the errors."""
    data = take_codestream(content, _LONGEST_START)
    if not data.startswith(CODESTREAM):
        raise damaged(_NAME, "it holds no picture") if len(data) >= len(CODESTREAM) else cut_off()
    bits = BitsFromLeast(data[len(CODESTREAM) :])
    try:
        header = _read_header(bits)
    except EOFError:
        raise cut_off() from None
    if header.extra_channels > _MAX_EXTRA_CHANNELS:
        raise too_many("channels", _MAX_EXTRA_CHANNELS)
    return header


def take_codestream(content: Content, count: int) -> bytes:
    """Return the first ``count`` bytes of the codestream, or all of a shorter one.

    Raises:
        CorruptImage: the boxes make no sense.
    """
    if content[0 : len(CODESTREAM)] == CODESTREAM:
        return content[0:count]
    return Pieces(content, _parts(content, count))[0:count]


def _parts(content: Content, count: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the codestream's parts, up to the one that completes its first ``count`` bytes."""
    for box in boxes(content, family=_NAME):
        if box.kind in {b"jxlc", b"jxlp"}:
            start = box.body if box.kind == b"jxlc" else min(box.body + _PART_HEAD, box.end)
            yield start, box.end
            count -= box.end - start
            if count <= 0:
                return


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata in the boxes and in the codestream's header.

    What is compressed is named, and not searched: its place is left out.
    """
    with suppress(CorruptImage):
        # What stands before damage counts.
        for box in boxes(content, family=_NAME) if content.startswith(CONTAINER) else ():
            if box.kind in _KINDS:
                offset = _TIFF_OFFSET + number(content, box.body, _TIFF_OFFSET) if box.kind == _EXIF else 0
                yield Metadata(_KINDS[box.kind], box.body + offset, box.end)
            elif box.kind == _COMPRESSED and (kind := _KINDS.get(content[box.body : box.body + 4])):
                yield Metadata(kind)
    with suppress(CorruptImage, EOFError):
        bits = BitsFromLeast(take_codestream(content, _LONGEST_HEADER)[len(CODESTREAM) :])
        header = _read_header(bits)
        if header.has_preview:
            yield Metadata(MetadataKind.THUMBNAIL)
        if header.extra_channels <= _MAX_EXTRA_CHANNELS and _has_profile(bits, header):
            yield Metadata(MetadataKind.ICC)


def _number(bits: BitsFromLeast, distribution: _Distribution) -> int:
    count, offset = distribution[bits.read(2)]
    return bits.read(count) + offset


def _read_header(bits: BitsFromLeast) -> Header:
    """Return the fields from the size to the number of channels.

    Raises:
        EOFError: they are cut off.
    """
    width, height = _read_size(bits)
    if bits.read(1):  # all others have their default
        return Header(width, height, 0, has_preview=False, is_default=True)
    extended, has_preview = bits.read(1), False
    if extended:
        bits.read(3)  # orientation
        if bits.read(1):
            _read_size(bits)  # at which it is meant to be shown
        has_preview = bool(bits.read(1))
        if has_preview:
            _skip_preview_size(bits)
        if bits.read(1):
            _skip_animation(bits)
    _skip_depth(bits)
    bits.read(1)  # whether 16 bits suffice for computing
    return Header(width, height, _number(bits, _EXTRA_CHANNELS), has_preview, is_default=False)


def _read_size(bits: BitsFromLeast) -> tuple[int, int]:
    small = bits.read(1)

    def side() -> int:
        return 8 * (bits.read(5) + 1) if small else _number(bits, _SIDE)

    height = side()
    ratio = bits.read(3)
    if not ratio:
        return side(), height
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height


def _skip_preview_size(bits: BitsFromLeast) -> None:
    distribution = _PREVIEW_BLOCKS if bits.read(1) else _PREVIEW_SIDE
    _number(bits, distribution)
    if not bits.read(3):
        _number(bits, distribution)


def _skip_animation(bits: BitsFromLeast) -> None:
    for distribution in (_TICKS, _TICKS_DIVISOR, _LOOPS):
        _number(bits, distribution)
    bits.read(1)  # whether frames have time codes


def _skip_depth(bits: BitsFromLeast) -> None:
    if bits.read(1):
        _number(bits, _FLOAT_DEPTH)
        bits.read(4)
    else:
        _number(bits, _INTEGER_DEPTH)


def _has_profile(bits: BitsFromLeast, header: Header) -> bool:
    """Whether an ICC profile describes the colours, from the fields after the number of channels.

    Raises:
        EOFError: they are cut off.
    """
    if header.is_default:
        return False
    for _ in range(header.extra_channels):
        _skip_extra_channel(bits)
    bits.read(1)  # whether the pixels are in JPEG XL's own colour space
    return not bits.read(1) and bool(bits.read(1))


def _skip_extra_channel(bits: BitsFromLeast) -> None:
    if bits.read(1):  # alpha of 8 bits
        return
    kind = _number(bits, _ENUM)
    _skip_depth(bits)
    _number(bits, _SHIFT)
    bits.read(8 * _number(bits, _NAME_LENGTH))
    if kind == _ALPHA:
        bits.read(1)
    elif kind == _SPOT:
        bits.read(4 * 16)
    elif kind == _FILTER:
        _number(bits, _COLOUR_FILTER)
