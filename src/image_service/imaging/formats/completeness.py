"""Whether a file can hold the pixels that its header announces, as far as its format sets a least length.

Decoders fill in what is missing where a file is closed properly, or allocate the whole picture before they notice.
"""

from collections.abc import Callable
from typing import Final

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import CorruptImage
from image_service.imaging.formats import gif, png
from image_service.imaging.formats.content import number
from image_service.imaging.formats.jpeg import COMPONENTS, OTHER_FRAMES, SEQUENTIAL_FRAMES, START_OF_SCAN, segments

_ALWAYS_ENOUGH: Final = 64
"""Pixels that a byte can hold in each of these formats."""
_DEFLATE_RATIO: Final = 1032
"""The most bytes that one byte inflates to: 258 bytes take a bit for their length and one for their distance."""
_CODE_BITS: Final = 3
"""The fewest bits of an LZW code of a GIF (GIF89a appendix F)."""
_LONGEST_STRING: Final = 4096
"""The most pixels that an LZW code stands for: each code makes strings that are one pixel longer, up to this."""
_BLOCK: Final = 8
"""Pixels on a side of the blocks that JPEG codes (ITU-T T.81 §A.1)."""
_BITS_OF_BLOCK: Final = dict.fromkeys(SEQUENTIAL_FRAMES, 2) | {0xC2: 1}
"""The fewest bits of a block in the first scan, by the kind of Huffman-coded frame: one code each for the first
coefficient and, in sequential frames, for the end of the block. Arithmetic coding has no such limit."""
_COMPONENT: Final = 3
"""Bytes about a component in a frame header."""


def check_length(content: bytes, header: ImageHeader) -> None:
    """Return if the file is long enough for its pixels, or its format sets no limit.

    Args:
        content: A file without what its picture does not need.
        header: What its header says.

    Raises:
        CorruptImage: its data ends too early.
    """
    if len(content) * _ALWAYS_ENOUGH >= header.width * header.height or header.format not in _IS_TOO_SHORT:
        return
    if _IS_TOO_SHORT[header.format](content):
        raise CorruptImage(
            "The file is too short for a picture of its size: its end is missing. Export the image again and upload "
            "the new file."
        )


def _is_short_png(content: bytes) -> bool:
    return len(content) * _DEFLATE_RATIO < png.pixel_bytes(png.read_header(content))


def _is_short_gif(content: bytes) -> bool:
    frame = gif.first_frame(content)
    if frame is None:
        return False
    codes = (len(content) - frame.end) * 8 // _CODE_BITS
    return codes * min(codes, _LONGEST_STRING) < frame.width * frame.height


def _is_short_jpeg(content: bytes) -> bool:
    frame = None
    for segment in segments(content):
        if segment.code == START_OF_SCAN:
            if frame is None or frame.code not in _BITS_OF_BLOCK:
                return False
            header, scan = content[frame.body : frame.end], content[segment.body : segment.end]
            return 8 * (len(content) - segment.end) < _BITS_OF_BLOCK[frame.code] * _blocks(header, scan)
        if segment.code in SEQUENTIAL_FRAMES | OTHER_FRAMES:
            # The last one counts for the decoder.
            frame = segment
    return False


def _blocks(frame: bytes, scan: bytes) -> int:
    """Return the number of blocks in the scan, from the contents of its header and of the frame's; whole ones only."""
    height, width = number(frame, 1, 2), number(frame, 3, 2)
    described = frame[COMPONENTS + 1 :]
    sampling = {
        described[at]: (described[at + 1] >> 4, described[at + 1] & 0x0F)
        for at in range(0, len(described) - _COMPONENT + 1, _COMPONENT)
    }
    most_across, most_down = (max((each[axis] for each in sampling.values()), default=0) for axis in (0, 1))
    selected = [sampling.get(selector, (0, 0)) for selector in scan[1 : 1 + 2 * number(scan, 0, 1) : 2]]
    return sum(
        (width * across // most_across // _BLOCK) * (height * down // most_down // _BLOCK)
        for across, down in selected
        if across and down
    )


_IS_TOO_SHORT: Final[dict[ImageFormat, Callable[[bytes], bool]]] = {
    ImageFormat.JPEG: _is_short_jpeg,
    ImageFormat.PNG: _is_short_png,
    ImageFormat.GIF: _is_short_gif,
}
