"""PNG: chunks (PNG specification §5.3 and §11)."""

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
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
_KEYWORDS: Final = {
    b"XML:com.adobe.xmp": MetadataKind.XMP,
    b"Comment": MetadataKind.COMMENT,
    b"Raw profile type exif": MetadataKind.EXIF,
    b"Raw profile type APP1": MetadataKind.EXIF,
    b"Raw profile type iptc": MetadataKind.IPTC,
    b"Raw profile type xmp": MetadataKind.XMP,
}
"""Keywords of texts that hold other metadata; all others are text."""

_BEFORE_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"IDAT", b"IEND"})
_AFTER_PIXELS: Final = frozenset({b"eXIf", b"IEND"})
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


def strip(content: bytes) -> bytes:
    """Return the file without text, animation, and whatever is optional and flawed or repeated, as viewers see it.

    Of animations the default image stays; scattered pixel chunks are cut off after the first run.

    Raises:
        ImageTooLarge: there are more than ``_MAX_CHUNKS``.
    """
    return without(content, _unneeded(content))


def _unneeded(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of everything that ``strip`` removes."""
    colour, wanted, in_pixels, end = read_header(content).colour, _BEFORE_PIXELS, False, _SIGNATURE_LENGTH
    count, seen = 0, set[bytes]()
    for chunk in chunks(content):
        (kind, start, end), count = chunk, count + 1
        if kind == b"IDAT":
            in_pixels = True
        elif in_pixels:
            wanted = _AFTER_PIXELS
        if kind not in wanted or not (_is_critical(kind) or _is_sound(chunk, content, colour, seen)):
            yield start, end
        if kind == b"IEND":
            break
    else:
        if count == _MAX_CHUNKS:
            raise too_many("chunks", _MAX_CHUNKS)
    # Junk after the last chunk.
    if end < len(content):
        yield end, len(content)


def _is_critical(kind: bytes) -> bool:
    """Whether the picture cannot be shown without it, so that the decoder judges its flaws (§5.4)."""
    return kind[:1].isupper()


def _is_sound(chunk: Chunk, content: bytes, colour: int, seen: set[bytes]) -> bool:
    """Whether an optional chunk is complete, makes sense, and is the first of its kind; ``seen`` collects the kinds."""
    body = content[chunk.body]
    if chunk.kind in seen or zlib.crc32(body, zlib.crc32(chunk.kind)) != number(content, chunk.body.stop, _CHECKSUM):
        return False
    if chunk.kind == b"tRNS" and len(body) not in _TRANSPARENCY_LENGTHS.get(colour, ()):
        return False
    # Even if it holds no profile: whatever a file repeats, no more than one is inflated.
    seen.add(chunk.kind)
    return chunk.kind != b"iCCP" or _holds_profile(body)


def _holds_profile(body: bytes) -> bool:
    """Whether an iCCP chunk inflates to a profile of a size that is used."""
    _, _, compressed = body.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    # The byte before the data names the compression method; there is only one.
    return compressed.startswith(b"\0") and not inflater.unconsumed_tail
