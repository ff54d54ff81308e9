"""JPEG: marker segments (ITU-T T.81 annex B), and the application data in them."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.imaging.formats.colour import Signal, profile
from image_service.imaging.formats.content import Content, cut_off, damaged, number, take, too_many, without
from image_service.imaging.formats.metadata import Metadata

MAX_SEGMENTS: Final = 4096
"""Segments that are read: an ICC profile takes 255 at most, and a file of more than 100 scans is refused. As many
before the first scan cost Pillow's parser 0.2 s at the most, and every further one up to 50 microseconds."""
START_OF_SCAN: Final = 0xDA
SEQUENTIAL_FRAMES: Final = frozenset({0xC0, 0xC1})
"""SOF0 and SOF1."""
OTHER_FRAMES: Final = frozenset(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF2 to SOF15; the codes between are tables: DHT, JPG and DAC."""
COMPONENTS: Final = 5
"""Where in the body of a frame header the number of its components stands; three bytes for each follow."""

_SOI_LENGTH: Final = 2
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker that begins a segment, or ends the image. TEM, SOI, restart markers, stuffed zeros and fill bytes do not."""
_MARKER_LENGTH: Final = 2
_HEADER: Final = 4
"""Marker and length field."""
_END_OF_IMAGE: Final = 0xD9
_PIECE: Final = 1 << 15
"""Bytes that are searched for a marker at a time."""
_MAX_JUNK: Final = 8192
"""Bytes of fill and junk, which decoders skip too, that the search for the frame header skips in all."""

_FRAMES: Final = SEQUENTIAL_FRAMES | OTHER_FRAMES
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FRAME_SIZE: Final = 1
"""Where in the body of a frame header the height stands, and the width after it."""

_FIRST_APPLICATION: Final = 0xE0
_METADATA: Final = frozenset({*range(_FIRST_APPLICATION, 0xF0), 0xFE})
"""APP0 to APP15 and COM."""
_EXIF_MARKER: Final = 0xE1
_EXIF: Final = b"Exif\0\0"
_ICC_MARKER: Final = 0xE2
_ICC: Final = b"ICC_PROFILE\0"
_ICC_HEADER: Final = 14
"""Signature, number of the part, and number of parts."""
_NEEDED: Final = {
    0xE0: (b"JFIF\0", 14),
    _EXIF_MARKER: (_EXIF, 6),
    _ICC_MARKER: (_ICC, _ICC_HEADER),
    0xEE: (b"Adobe", 12),
}
"""Application data that decides on colours and orientation, by marker: its signature, and its least length."""
_JFIF_THUMBNAIL_SIZE: Final = slice(12, 14)
_XMP: Final = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
_IPTC: Final = b"8BIM\x04\x04"
_PHOTOSHOP_THUMBNAILS: Final = (b"8BIM\x04\x09", b"8BIM\x04\x0c")


class Segment(NamedTuple):
    """A marker segment."""

    code: int
    """The second byte of its marker."""
    start: int
    """Where its marker begins."""
    body: int
    """Where its content begins, after the length field."""
    end: int
    """Beyond the end of the file, if that cuts the segment off."""


def segments(content: Content, max_junk: int | None = None) -> Iterator[Segment]:
    """Yield the segments of the first image, at most ``MAX_SEGMENTS`` of them; the last may be cut off.

    What stands between two segments belongs to neither: entropy-coded data, or junk.

    Args:
        content: A JPEG file.
        max_junk: How many bytes between segments are searched for markers, in all; any number, if left out.
    """
    position, junk = _SOI_LENGTH, len(content) if max_junk is None else max_junk
    for _ in range(MAX_SEGMENTS):
        start, head = position, content[position : position + _HEADER]
        if not _MARKER.match(head):
            found = find_marker(content, position, junk)
            if found is None:
                return
            start, junk, head = found, junk - (found - position), content[found : found + _HEADER]
        if head[1] == _END_OF_IMAGE:
            return
        body = start + _HEADER
        # A length too short for itself counts as none.
        position = max(body, start + _MARKER_LENGTH + int.from_bytes(head[_MARKER_LENGTH:]))
        yield Segment(head[1], start, body, position)


def find_marker(content: Content, position: int, junk: int) -> int | None:
    """Return where the next marker begins, ``junk`` bytes after ``position`` at most."""
    stop = min(position + junk, len(content))
    while position < stop:
        # One byte more: a marker may lie across the edge of two pieces.
        if found := _MARKER.search(content[position : min(position + _PIECE, stop) + 1]):
            return position + found.start()
        position += _PIECE
    return None


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels, from the first frame header.

    Raises:
        CorruptImage: there is none before the first scan, or none within reach.
    """
    size = take(content, _first_frame(content).body + _FRAME_SIZE, 4)
    return int.from_bytes(size[2:]), int.from_bytes(size[:2])


def buffered_samples(content: Content) -> float:
    """Return how many samples a pixel a decoder keeps until the last scan: none, unless the file is progressive.

    Raises:
        CorruptImage: the frame header is incomplete.
    """
    frame = _first_frame(content)
    if frame.code not in _PROGRESSIVE:
        return 0
    (count,) = take(content, frame.body + COMPONENTS, 1)
    components = take(content, frame.body + COMPONENTS + 1, 3 * count)
    areas = [(byte >> 4) * (byte & 0x0F) for byte in components[1::3]]
    return sum(areas) / max([1, *areas])


def _first_frame(content: Content) -> Segment:
    end = _SOI_LENGTH
    for segment in segments(content, _MAX_JUNK):
        if segment.code in _FRAMES:
            return segment
        if segment.code == START_OF_SCAN:
            break
        end = segment.end
    if end >= len(content):
        raise cut_off()
    raise damaged("JPEG", "it has no frame header that says how large the image is")


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata in the segments before the first scan."""
    for code, _, body, end in segments(content):
        if code == START_OF_SCAN:
            return
        if code >= _FIRST_APPLICATION:
            for kind in _kinds(code, content[body:end]):
                yield Metadata(kind, body, end)


def _kinds(code: int, body: bytes) -> Iterator[MetadataKind]:
    match code:
        case 0xE0 if body.startswith(b"JFXX\0") or (body.startswith(b"JFIF\0") and any(body[_JFIF_THUMBNAIL_SIZE])):
            yield MetadataKind.THUMBNAIL
        case 0xE1 if body.startswith(_EXIF):
            yield MetadataKind.EXIF
        case 0xE1 if body.startswith(_XMP):
            yield MetadataKind.XMP
        case 0xE2 if body.startswith(_ICC):
            yield MetadataKind.ICC
        case 0xE2 if body.startswith(b"MPF\0"):
            yield MetadataKind.THUMBNAIL
        case 0xED:
            if _IPTC in body:
                yield MetadataKind.IPTC
            if any(signature in body for signature in _PHOTOSHOP_THUMBNAILS):
                yield MetadataKind.THUMBNAIL
        case 0xFE:
            yield MetadataKind.COMMENT


def strip(content: bytes) -> bytes:
    """Return the file without the comments, previews, application data and junk that stand before its first scan.

    Of several EXIF segments the first stays, as in browsers: Pillow would join them, each time with a copy of them all.

    Raises:
        ImageTooLarge: there are more than ``MAX_SEGMENTS`` before the first scan.
    """
    return without(content, _unneeded(content))


def _unneeded(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of everything that ``strip`` removes."""
    position, count, exifs = _SOI_LENGTH, 0, 0
    for code, start, body, end in segments(content):
        if start > position:
            yield position, start
        if code == START_OF_SCAN:
            return
        needed = code not in _METADATA or _is_needed(code, content, body, end)
        exifs += needed and code == _EXIF_MARKER
        if not needed or (code == _EXIF_MARKER and exifs > 1):
            yield start, end
        position, count = end, count + 1
    if count == MAX_SEGMENTS:
        raise too_many("segments before its first scan", MAX_SEGMENTS)


def _is_needed(code: int, content: bytes, body: int, end: int) -> bool:
    if code not in _NEEDED:
        return False
    signature, length = _NEEDED[code]
    return end - body >= length and content.startswith(signature, body)


def colour(content: bytes) -> Iterator[Signal]:
    """Yield the first profile in the segments before the first scan, also after the frame header (ICC.1 annex B.4).

    It is ignored where a part is missing or repeated, as browsers do.
    """
    parts: dict[int, bytes] = {}
    count = 0
    for code, _, body, end in segments(content):
        if code == START_OF_SCAN:
            return
        if code == _ICC_MARKER and _is_needed(code, content, body, end):
            index, total = number(content, body + len(_ICC), 1), number(content, body + len(_ICC) + 1, 1)
            if index in parts or not 1 <= index <= total or total != (count or total):
                return
            parts[index], count = content[body + _ICC_HEADER : end], total
            if len(parts) == count:
                break
    if found := profile(b"".join(parts[index] for index in sorted(parts))):
        yield found


def exif(content: bytes) -> bytes:
    """Return the content of the first EXIF segment before the first scan; empty if there is none."""
    for code, _, body, end in segments(content):
        if code == START_OF_SCAN:
            break
        # Browsers do not look at the last byte of the signature.
        if code == _EXIF_MARKER and end - body >= len(_EXIF) and content.startswith(_EXIF[:-1], body):
            return content[body + len(_EXIF) : end]
    return b""
