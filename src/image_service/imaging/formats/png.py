"""PNG: chunks (PNG specification §5.3 and §11)."""

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.imaging.formats.colour import SRGB, Cicp, Gamma, Signal, profile
from image_service.imaging.formats.content import Content, cut_off, damaged, number, take, too_many, without
from image_service.imaging.formats.metadata import Metadata
from image_service.imaging.limits import MAX_PROFILE_BYTES

_MAX_CHUNKS: Final = 1 << 15
"""Chunks that are read; libpng writes 250 MB of pixels in as many. Each costs the decoder up to five microseconds."""
_MAX_CHUNKS_FOR_METADATA: Final = 10_000
"""The same where a later one changes only what is reported: libpng writes 80 MB of pixels in as many."""
_SIGNATURE_LENGTH: Final = 8
_LENGTH_AND_KIND: Final = 8
_CHECKSUM: Final = 4
_KIND: Final = re.compile(rb"[A-Za-z]{4}")

_IHDR_LENGTH: Final = 13
_INFLATED_PIECE: Final = 1 << 18
"""Bytes of pixels that are inflated at a time, where only their number matters."""
_MAX_SIDE: Final = 2**31 - 1
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
"""Bit depths allowed for each colour type (table 12)."""

_KINDS: Final = {b"iCCP": MetadataKind.ICC, b"eXIf": MetadataKind.EXIF}
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_LONGEST_KEYWORD: Final = 79
_LONGEST_PROFILE_NAME: Final = 80
"""One more than the specification allows, as browsers have it."""
_KEYWORDS: Final = {
    b"XML:com.adobe.xmp": MetadataKind.XMP,
    b"Comment": MetadataKind.COMMENT,
    b"Raw profile type exif": MetadataKind.EXIF,
    b"Raw profile type APP1": MetadataKind.EXIF,
    b"Raw profile type iptc": MetadataKind.IPTC,
    b"Raw profile type xmp": MetadataKind.XMP,
}
"""Keywords of texts that hold other metadata; all others are text."""

_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that decoders get. Those that decide on colours and orientation are read here."""
_AFTER_PIXELS: Final = frozenset({b"IEND"})
_COLOUR_LENGTHS: Final = {
    b"cICP": range(4, 5),
    b"cLLI": range(8, 9),
    b"mDCV": range(24, 25),
    b"iCCP": range(1 << 31),
    b"sRGB": range(1, 2),
    b"gAMA": range(4, 5),
    b"cHRM": range(32, 33),
}
"""Lengths of the chunks that decide on colours (§11.3.2)."""
_EXIF: Final = {b"eXIf": range(1 << 31)}
_USUAL_GAMMAS: Final = range(43_182, 47_728)
"""Values of gAMA that stand for sRGB, as in browsers, if there is no cHRM: within 5 % of 1/2.2."""
_LIGHT_UNIT: Final = 10_000
"""By what cLLI and mDCV multiply nits."""
_PEAK_OF_DISPLAY: Final = 16
"""Where mDCV says how bright the display was that the picture was made on."""
_UNIT: Final = 100_000
"""By what gAMA and cHRM multiply their numbers."""
_GREY, _RGB, _PALETTE = 0, 2, 3
_SAMPLES: Final = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
"""Samples of a pixel, by colour type."""
_ONE_PASS: Final = ((0, 0, 1, 1),)
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: first column and row, and the distance to the next (§8)."""
_TRANSPARENCY_LENGTHS: Final = {_GREY: range(2, 3), _RGB: range(6, 7), _PALETTE: range(1, 257)}
"""Lengths that tRNS can have, by colour type."""


class Chunk(NamedTuple):
    """A chunk."""

    kind: bytes
    start: int
    """Where its length field begins."""
    end: int
    """After its checksum; beyond the end of the file, if that cuts the chunk off."""

    @property
    def body(self) -> slice:
        """The place of its content."""
        return slice(self.start + _LENGTH_AND_KIND, self.end - _CHECKSUM)


class Header(NamedTuple):
    """The content of the IHDR chunk (§11.2.1)."""

    width: int
    """In pixels."""
    height: int
    depth: int
    """Bits a sample."""
    colour: int
    """The colour type."""
    compression: int
    filtering: int
    interlace: int


def chunks(content: Content) -> Iterator[Chunk]:
    """Yield the chunks up to an impossible name, at most ``_MAX_CHUNKS`` of them; the last may be cut off."""
    position = _SIGNATURE_LENGTH
    for _ in range(_MAX_CHUNKS):
        head = content[position : position + _LENGTH_AND_KIND]
        if not _KIND.match(head, 4):
            return
        start, position = position, position + _LENGTH_AND_KIND + int.from_bytes(head[:4]) + _CHECKSUM
        yield Chunk(head[4:], start, position)


def read_header(content: Content) -> Header:
    """Return what the IHDR chunk says.

    Raises:
        CorruptImage: it is not the first chunk, or breaks a rule that every decoder relies on.
    """
    first = next(chunks(content), None)
    if first is None and len(content) < _SIGNATURE_LENGTH + _LENGTH_AND_KIND:
        raise cut_off()
    if first is None or first.kind != b"IHDR" or first.body.stop - first.body.start != _IHDR_LENGTH:
        raise damaged("PNG", "it does not begin with IHDR")
    body = take(content, first.body.start, _IHDR_LENGTH)
    if zlib.crc32(first.kind + body) != int.from_bytes(take(content, first.body.stop, _CHECKSUM)):
        raise damaged("PNG", "the checksum of IHDR is wrong")
    header = Header(*struct.unpack(">IIBBBBB", body))
    methods = header.compression, header.filtering, header.interlace > 1
    if header.depth not in _DEPTHS.get(header.colour, ()) or any(methods):
        raise damaged("PNG", "IHDR names a kind of image that does not exist")
    if max(header.width, header.height) > _MAX_SIDE:
        raise damaged("PNG", "IHDR gives an impossible size")
    return header


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels.

    Raises:
        CorruptImage: the header is damaged.
    """
    header = read_header(content)
    return header.width, header.height


def pixel_bytes(header: Header) -> int:
    """Return the length of the inflated pixel data in bytes: rows, each after the number of its filter (§7 to §9)."""
    bits = _SAMPLES[header.colour] * header.depth
    total = 0
    for left, top, across, down in _PASSES if header.interlace else _ONE_PASS:
        width, height = -(-(header.width - left) // across), -(-(header.height - top) // down)
        if width > 0:
            total += height * (1 + -(-width * bits // 8))
    return total


def has_all_pixels(content: bytes) -> bool:
    """Whether the pixel data inflates to as many bytes as the header announces, or more. Takes as long as inflating."""
    missing, inflater = pixel_bytes(read_header(content)), zlib.decompressobj()
    for chunk in chunks(content):
        rest = content[chunk.body] if chunk.kind == b"IDAT" else b""
        while rest and missing > 0:
            missing -= len(inflater.decompress(rest, _INFLATED_PIECE))
            rest = inflater.unconsumed_tail
    return missing <= 0


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata in the chunks; the keyword of a text gives its kind."""
    for chunk in islice(chunks(content), _MAX_CHUNKS_FOR_METADATA):
        if chunk.kind in _KINDS:
            yield Metadata(_KINDS[chunk.kind], chunk.body.start, chunk.body.stop)
        elif chunk.kind in _TEXTS:
            start, end = chunk.body.start, chunk.body.stop
            keyword = content[start : min(end, start + _LONGEST_KEYWORD + 1)].partition(b"\0")[0]
            yield Metadata(_KEYWORDS.get(keyword, MetadataKind.TEXT), start, end)


def colour(content: bytes) -> Iterator[Signal]:
    """Yield what the chunks before the pixels say about the colours, the most important first (§4.3).

    Of each kind the first chunk counts that is complete and has the right length, checksum and position.
    """
    found = _before_pixels(content, _COLOUR_LENGTHS)
    if b"cICP" in found:
        primaries, transfer, matrix, full_range = found[b"cICP"]
        # Samples are RGB, so that no matrix is allowed; and a narrow range is for video.
        if matrix == 0 and full_range == 1:
            brightest = number(found.get(b"cLLI", b""), 0, 4) or number(found.get(b"mDCV", b""), _PEAK_OF_DISPLAY, 4)
            yield Cicp(primaries, transfer, brightest / _LIGHT_UNIT)
    if embedded := _inflate_profile(found.get(b"iCCP", b"")):
        yield embedded
    if b"sRGB" in found:
        yield SRGB
    if exponent := number(found.get(b"gAMA", b""), 0, 4):
        points = struct.unpack(">8I", found[b"cHRM"]) if b"cHRM" in found else ()
        if points or exponent not in _USUAL_GAMMAS:
            yield Gamma(exponent / _UNIT, tuple(value / _UNIT for value in points))


def exif(content: bytes) -> bytes:
    """Return the content of the eXIf chunk before the pixels; later ones are ignored, as by browsers. Empty if none."""
    return _before_pixels(content, _EXIF).get(b"eXIf", b"")


def _before_pixels(content: bytes, lengths: dict[bytes, range]) -> dict[bytes, bytes]:
    """Return the contents of the first sound chunk of each kind, by kind, from those before the pixels."""
    found: dict[bytes, bytes] = {}
    for chunk in chunks(content):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind == b"PLTE":
            lengths = {kind: length for kind, length in lengths.items() if kind != b"cICP"}
        if chunk.kind in lengths and chunk.kind not in found and _is_sound(chunk, content, lengths[chunk.kind]):
            found[chunk.kind] = content[chunk.body]
    return found


def _inflate_profile(body: bytes) -> Signal | None:
    """Return the profile in an iCCP chunk; None where it cannot be inflated, or is larger than any that is used."""
    name, _, compressed = body.partition(b"\0")
    # The byte before the data names the compression method; there is only one.
    if not 0 < len(name) <= _LONGEST_PROFILE_NAME or not compressed.startswith(b"\0"):
        return None
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(compressed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else profile(content)


def strip(content: bytes) -> bytes:
    """Return the file without text, animation, metadata, and transparency that is flawed or repeated.

    Of animations the default image stays; scattered pixel chunks are cut off after the first run.

    Raises:
        ImageTooLarge: there are more than ``_MAX_CHUNKS``.
    """
    return without(content, _unneeded(content))


def _unneeded(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of everything that ``strip`` removes."""
    transparency = _TRANSPARENCY_LENGTHS.get(read_header(content).colour, range(0))
    wanted, in_pixels, end, count = _NEEDED, False, _SIGNATURE_LENGTH, 0
    for chunk in chunks(content):
        (kind, start, end), count = chunk, count + 1
        if kind == b"IDAT":
            in_pixels = True
        elif in_pixels:
            wanted = _AFTER_PIXELS
        if kind not in wanted or (kind == b"tRNS" and not _is_sound(chunk, content, transparency)):
            yield start, end
        elif kind == b"tRNS":
            # Only the first counts.
            wanted = _NEEDED - {kind}
        if kind == b"IEND":
            break
    else:
        if count == _MAX_CHUNKS:
            raise too_many("chunks", _MAX_CHUNKS)
    # Junk after the last chunk.
    if end < len(content):
        yield end, len(content)


def _is_sound(chunk: Chunk, content: bytes, lengths: range) -> bool:
    """Whether an optional chunk is complete, of one of these lengths, and has the right checksum (§5.3).

    The decoder judges the others: without them the picture cannot be shown.
    """
    if chunk.body.stop - chunk.body.start not in lengths or chunk.end > len(content):
        return False
    checksum = zlib.crc32(content[chunk.body], zlib.crc32(chunk.kind))
    return checksum == number(content, chunk.body.stop, _CHECKSUM)
