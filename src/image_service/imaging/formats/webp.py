"""WebP: RIFF chunks (RFC 9649 §2.3 to §2.7)."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.imaging.formats.colour import Signal, profile
from image_service.imaging.formats.content import Content, cut_off, damaged, take
from image_service.imaging.formats.metadata import Metadata

FIRST_CHUNK: Final = 12
"""Where the first chunk begins."""
ALPHA: Final = 0x10
"""The flag of a VP8X chunk that announces transparency (§2.7)."""
ANIMATION: Final = 0x02
"""The flag of a VP8X chunk that announces an animation."""
_PROFILE: Final = 0x20
"""The flag of a VP8X chunk that announces a profile."""

_MAX_CHUNKS: Final = 10_000
_KIND_AND_LENGTH: Final = 8
_SIDE_BITS: Final = 14
_SIDE_MASK: Final = (1 << _SIDE_BITS) - 1
_LOSSLESS_SIGNATURE: Final = 0x2F
_KINDS: Final = {b"ICCP": MetadataKind.ICC, b"EXIF": MetadataKind.EXIF, b"XMP ": MetadataKind.XMP}


class Chunk(NamedTuple):
    """A chunk."""

    kind: bytes
    start: int
    body: int
    """Where its content begins."""
    end: int
    """Where its content ends; beyond the end of the file, if that cuts the chunk off."""

    @property
    def next(self) -> int:
        """Where the next chunk begins: contents are padded to an even length."""
        return self.end + (self.end - self.body) % 2


def chunks(content: Content) -> Iterator[Chunk]:
    """Yield the chunks in a file, at most ``_MAX_CHUNKS`` of them; the last may be cut off."""
    position = FIRST_CHUNK
    for _ in range(_MAX_CHUNKS):
        body = position + _KIND_AND_LENGTH
        head = content[position:body]
        if len(head) < _KIND_AND_LENGTH:
            return
        chunk = Chunk(head[:4], position, body, body + int.from_bytes(head[4:], "little"))
        yield chunk
        position = chunk.next


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels: of the canvas in the extended format, otherwise of the only frame.

    Raises:
        CorruptImage: the first chunk is none that may begin a WebP file, or its content is damaged.
    """
    first = next(chunks(content), None)
    match first:
        case None:
            raise cut_off()
        case Chunk(kind=b"VP8X"):
            body = take(content, first.body, 10)
            return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        case Chunk(kind=b"VP8L"):
            signature, bits = struct.unpack("<BI", take(content, first.body, 5))
            if signature == _LOSSLESS_SIGNATURE:
                return 1 + (bits & _SIDE_MASK), 1 + (bits >> _SIDE_BITS & _SIDE_MASK)
        case Chunk(kind=b"VP8 "):
            frame_tag, start_code, width, height = struct.unpack("<3s3sHH", take(content, first.body, 10))
            if not frame_tag[0] & 1 and start_code == b"\x9d\x01\x2a":
                return width & _SIDE_MASK, height & _SIDE_MASK
        case _:
            raise damaged("WebP", "its first chunk is no image")
    raise damaged("WebP", "the frame does not begin as a key frame does")


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata in the chunks of the extended format."""
    for chunk in chunks(content):
        if chunk.kind in _KINDS:
            yield Metadata(_KINDS[chunk.kind], chunk.body, chunk.end)


def colour(content: bytes) -> Iterator[Signal]:
    """Yield the profile, if the file announces it (§2.7.1.4)."""
    flags = 0
    for chunk in chunks(content):
        if chunk.kind == b"VP8X" and chunk.start == FIRST_CHUNK:
            flags = content[chunk.body]
        if not flags & _PROFILE:
            return
        if chunk.kind == b"ICCP":
            if found := profile(content[chunk.body : chunk.end]):
                yield found
            return
