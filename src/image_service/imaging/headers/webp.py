"""WebP: the first chunk (RFC 9649 §2.5 to §2.7)."""

import struct
from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

_RIFF_HEADER_LENGTH: Final = 12
_SIDE_BITS: Final = 14
_SIDE_MASK: Final = (1 << _SIDE_BITS) - 1


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels: of the canvas in the extended format, else of the one frame.

    Raises:
        CorruptImage: the first chunk is none that may begin a WebP file, or its content is damaged.
    """
    reader.skip(_RIFF_HEADER_LENGTH)
    kind = reader.take(4)
    reader.skip(4)
    match kind:
        case b"VP8X":
            content = reader.take(10)
            return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
        case b"VP8L":
            signature, bits = struct.unpack("<BI", reader.take(5))
            if signature == 0x2F:  # noqa: PLR2004 — the lossless signature byte
                return 1 + (bits & _SIDE_MASK), 1 + (bits >> _SIDE_BITS & _SIDE_MASK)
        case b"VP8 ":
            frame_tag, start_code, width, height = struct.unpack("<3s3sHH", reader.take(10))
            if not frame_tag[0] & 1 and start_code == b"\x9d\x01\x2a":
                return width & _SIDE_MASK, height & _SIDE_MASK
        case _:
            raise damaged("WebP", "its first chunk is no image")
    raise damaged("WebP", "the frame does not begin as a key frame does")
