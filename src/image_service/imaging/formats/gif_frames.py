"""GIF: the frames of an animation (GIF89a §20 to §26)."""

import struct
from collections.abc import Iterator
from typing import Final

from image_service.imaging.formats.animation import Disposal, Frame, Place, shown_for
from image_service.imaging.formats.content import too_many
from image_service.imaging.formats.gif import Block, blocks, colour_table

_STEPS: Final = 1 << 17
"""Blocks, sub-blocks and bytes of junk that are read; pixels of 33 MB take as many."""
_SCREEN: Final = 6
_SCREEN_LENGTH: Final = 7
_IMAGE, _TRAILER, _UNREAD = b",", b";", b""
_GRAPHIC_CONTROL: Final = b"!\xf9\x04"
_CONTROL_LENGTH: Final = 8
_DISPOSALS: Final = {2: Disposal.CLEAR, 3: Disposal.RESTORE, 4: Disposal.RESTORE}
"""Of others the frame stays. Old encoders took 4 for 3, and browsers do likewise."""
_LOOPS: Final = (b"!\xff\x0bNETSCAPE2.0\x03\x01", b"!\xff\x0bANIMEXTS1.0\x03\x01")
_COUNT_AT: Final = len(_LOOPS[0])


def plays(content: bytes) -> int:
    """Return how many times the animation is shown; zero: for ever. The extension counts repetitions."""
    for block in blocks(content, _STEPS):
        if content.startswith(_LOOPS, block.start):
            repetitions = int.from_bytes(content[block.start + _COUNT_AT : block.start + _COUNT_AT + 2], "little")
            return repetitions + 1 if repetitions else 0
    return 1


def places(content: bytes) -> Iterator[Place]:
    """Yield where the frames are drawn.

    Raises:
        ImageTooLarge: there are more blocks than are read.
    """
    for image, _, _ in _images(content):
        yield _place(content, image)


def frames(content: bytes) -> Iterator[Frame]:
    """Yield the frames; one whose descriptor is cut off ends them.

    Raises:
        ImageTooLarge: there are more blocks than are read.
    """
    palette = content[_SCREEN + _SCREEN_LENGTH :][: colour_table(content[_SCREEN + 4 : _SCREEN + 5])]
    flags, background, ratio = content[_SCREEN + 4 : _SCREEN + _SCREEN_LENGTH]
    for image, end, control in _images(content):
        place = _place(content, image)
        screen = b"GIF89a" + struct.pack("<HHBBB", place.width, place.height, flags, background, ratio) + palette
        descriptor = b"," + struct.pack("<HHHH", 0, 0, place.width, place.height)
        yield Frame(
            place=place,
            milliseconds=shown_for(10 * int.from_bytes(control[4:6], "little")),
            disposal=_DISPOSALS.get(control[3] >> 2 & 7 if control else 0, Disposal.KEEP),
            blend=True,
            still=screen + control + descriptor + content[image.start + len(descriptor) : end] + _TRAILER,
        )


def _images(content: bytes) -> Iterator[tuple[Block, int, bytes]]:
    """Yield each image with the end of its pixels and the graphic control extension before it, if there is one."""
    image, control, its_control = None, b"", b""
    for block in blocks(content, _STEPS):
        if block.introducer == _UNREAD:
            raise too_many("blocks", _STEPS)
        if image:
            yield image, block.start, its_control
            image = None
        if block.introducer == _IMAGE:
            image, its_control, control = block, control, b""
        elif content.startswith(_GRAPHIC_CONTROL, block.start) and block.end - block.start == _CONTROL_LENGTH:
            control = content[block.start : block.end]
    if image and image.end <= len(content):
        yield image, len(content), its_control


def _place(content: bytes, image: Block) -> Place:
    return Place(*struct.unpack("<HHHH", content[image.start + 1 : image.start + 9]))
