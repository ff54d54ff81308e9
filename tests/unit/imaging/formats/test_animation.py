"""The frames of animations are found in their containers, also in those that break rules."""

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from harness.animations import Part, apng, gif, gif_frame, riff_chunk, webp, webp_frame
from harness.images import encoded, gradient, png_chunk
from image_service.domain.image import ImageFormat
from image_service.errors import ImageTooLarge
from image_service.imaging.formats import read_animation, read_frames
from image_service.imaging.formats.animation import Disposal, Frame, Outline, Place

SIZE = 40, 30
RED, BLUE = (Part(image=Image.new("RGBA", SIZE, colour)) for colour in ("red", "blue"))
DOT = Part(image=Image.new("RGBA", (10, 8), "lime"), at=(4, 6), disposal="clear", milliseconds=70, blend=False)
GIF, PNG, WEBP = ImageFormat.GIF, ImageFormat.PNG, ImageFormat.WEBP
MAKERS: dict[ImageFormat, Callable[..., bytes]] = {GIF: gif, PNG: apng, WEBP: webp}


def outline(content: bytes, image_format: ImageFormat, max_frames: int = 100) -> Outline | None:
    return read_animation(content, image_format, max_frames)


def frames(content: bytes, image_format: ImageFormat) -> list[Frame]:
    return list(read_frames(content, image_format))


def places(content: bytes, image_format: ImageFormat) -> list[Place]:
    return [frame.place for frame in frames(content, image_format)]


@pytest.mark.parametrize("image_format", MAKERS)
def test_finds_frames(image_format: ImageFormat) -> None:
    content = MAKERS[image_format](SIZE, RED, DOT, BLUE, plays=3)
    found = outline(content, image_format)
    assert found == Outline(plays=3, places=(Place(0, 0, 40, 30), Place(4, 6, 10, 8), Place(0, 0, 40, 30)))
    _, dot, _ = frames(content, image_format)
    assert (dot.place, dot.milliseconds, dot.disposal) == (Place(4, 6, 10, 8), 70, Disposal.CLEAR)
    assert dot.blend == (image_format is GIF)


@pytest.mark.parametrize("image_format", MAKERS)
def test_looks_for_one_frame_more_than_allowed(image_format: ImageFormat) -> None:
    found = outline(MAKERS[image_format](SIZE, *[RED] * 9), image_format, max_frames=5)
    assert found
    assert len(found.places) == 6


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "JPEG", "BMP", "TIFF"])
def test_stills_are_none(name: str) -> None:
    assert outline(encoded(gradient(*SIZE), name), ImageFormat(name.lower())) is None


def test_gif_without_repetitions_is_shown_once() -> None:
    found = outline(gif(SIZE, RED, BLUE, plays=1), GIF)
    assert found
    assert found.plays == 1


@pytest.mark.parametrize("name", [b"NETSCAPE2.0", b"ANIMEXTS1.0"])
def test_repetitions_of_a_gif_stand_anywhere(name: bytes) -> None:
    extension = b"!\xff\x0b" + name + b"\3\1" + struct.pack("<H", 4) + b"\0"
    found = outline(gif(SIZE, RED, BLUE, plays=1)[:-1] + extension + b";", GIF)
    assert found
    assert found.plays == 5


def test_gif_frame_without_control_has_no_disposal() -> None:
    frame = gif_frame(RED)[8:]
    first, second = frames(gif(SIZE)[:-1] + frame + frame + b";", GIF)
    assert (first.disposal, first.milliseconds) == (second.disposal, second.milliseconds) == (Disposal.KEEP, 100)


@pytest.mark.parametrize(
    ("number", "disposal"), [(0, "keep"), (1, "keep"), (2, "clear"), (3, "restore"), (4, "restore"), (7, "keep")]
)
def test_disposals_of_a_gif(number: int, disposal: str) -> None:
    frame = bytearray(gif_frame(RED))
    frame[3] = number << 2
    first, _ = frames(gif(SIZE)[:-1] + bytes(frame) + gif_frame(BLUE) + b";", GIF)
    assert first.disposal is Disposal(disposal)


def test_gif_of_too_many_blocks_is_refused() -> None:
    content = gif(SIZE, RED, BLUE)[:-1] + b"!\xfe\0" * 140_000
    with pytest.raises(ImageTooLarge):
        outline(content, GIF)
    with pytest.raises(ImageTooLarge):
        frames(content, GIF)


def test_gif_frame_that_is_cut_off_in_its_descriptor_is_none() -> None:
    content = gif(SIZE, RED, BLUE)[:-1]
    for length in range(1, 12):
        assert len(places(content + b"," + bytes(length), GIF)) == (2 if length < 10 else 3)


def _edited_control(at: int, value: bytes) -> bytes:
    """An animation whose second fcTL chunk has other bytes at a place, and a checksum that fits."""
    content = apng(SIZE, RED, DOT, BLUE)
    start = content.index(b"fcTL", content.index(b"fcTL") + 4)
    body = bytearray(content[start + 4 : start + 30])
    body[at : at + len(value)] = value
    return content[: start + 4] + bytes(body) + struct.pack(">I", zlib.crc32(b"fcTL" + body)) + content[start + 34 :]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, struct.pack(">I", 5)),
        (4, struct.pack(">I", 0)),
        (8, struct.pack(">I", 0)),
        (4, struct.pack(">I", 37)),
        (8, struct.pack(">I", 1 << 31)),
        (12, struct.pack(">I", 31)),
        (16, struct.pack(">I", 0xFFFFFFFF)),
        (24, b"\3"),
    ],
    ids=["sequence", "no width", "no height", "too wide", "too high", "too far right", "too far down", "disposal"],
)
def test_impossible_frame_ends_an_apng(at: int, value: bytes) -> None:
    assert len(places(_edited_control(at, b""), PNG)) == 3
    assert len(places(_edited_control(at, value), PNG)) == 1


def test_delays_of_an_apng_are_fractions() -> None:
    for numbers, milliseconds in (((1, 4), 250), ((5, 0), 50), ((0, 0), 100), ((65535, 1), 65_535_000)):
        frame = frames(_edited_control(20, struct.pack(">HH", *numbers)), PNG)[1]
        assert frame.milliseconds == milliseconds


def test_control_of_another_length_ends_an_apng() -> None:
    content = apng(SIZE, RED, DOT).replace(struct.pack(">I", 26) + b"fcTL", struct.pack(">I", 25) + b"fcTL")
    assert outline(content, PNG) is None


def test_damaged_pixels_of_a_later_frame_end_an_apng() -> None:
    content = bytearray(apng(SIZE, RED, DOT, BLUE))
    content[content.index(b"fdAT") + 9] ^= 1
    assert len(places(bytes(content), PNG)) == 1


def test_announcement_counts_only_before_the_pixels() -> None:
    animated = apng(SIZE, RED, DOT)
    control = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    late = animated.replace(control, b"").replace(png_chunk(b"IEND", b""), control + png_chunk(b"IEND", b""))
    assert outline(animated, PNG)
    assert outline(late, PNG) is None
    assert outline(animated.replace(control, png_chunk(b"acTL", bytes(7))), PNG) is None


def test_frames_of_an_apng_share_one_palette() -> None:
    palette = png_chunk(b"PLTE", bytes(range(9)))
    many = png_chunk(b"PLTE", bytes(3 * 300)) + palette + png_chunk(b"PLTE", bytes(3)) * 1000
    for frame in frames(apng(SIZE, RED, DOT, chunks=many), PNG):
        assert frame.still.count(b"PLTE") == 1
        assert palette in frame.still


def test_webp_frame_too_short_for_its_head_is_none() -> None:
    content = webp(SIZE, RED, BLUE) + riff_chunk(b"ANMF", bytes(15)) + webp_frame(DOT)
    assert len(places(content, WEBP)) == 3


def test_webp_without_announcement_is_none() -> None:
    assert outline(webp(SIZE, RED, BLUE).replace(b"ANIM", b"ANIX"), WEBP) is None


def test_webp_frame_keeps_only_chunks_of_its_picture() -> None:
    head = webp_frame(DOT)[8:24]
    lossy = encoded(gradient(10, 8).convert("RGB"), "WEBP")[12:]
    frame = riff_chunk(b"ANMF", head + riff_chunk(b"JUNK", b"abc") + riff_chunk(b"ALPH", b"\0" * 81) + lossy)
    *_, last = frames(webp(SIZE, RED) + frame, WEBP)
    assert b"JUNK" not in last.still
    assert last.still[12:16] == b"VP8X"
    with Image.open(io.BytesIO(last.still)) as image:
        assert (image.mode, image.size) == ("RGBA", (10, 8))
