"""Frames of animations are drawn on their canvas as Pillow, libwebp and browsers do."""

import io
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from harness.animations import CLEAR, KEEP, RESTORE, Part, apng, frames_of, gif, webp
from harness.images import gradient
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.imaging.formats import read_frames
from image_service.imaging.render.frames import draw

SIZE = 40, 30
RED, GREEN = Image.new("RGBA", SIZE, "red"), Image.new("RGBA", SIZE, "lime")
DOT = Image.new("RGBA", (10, 10), "blue")
NOTHING = 0, 0, 0, 0
MAKERS: dict[ImageFormat, Callable[..., bytes]] = {
    ImageFormat.GIF: gif,
    ImageFormat.PNG: apng,
    ImageFormat.WEBP: webp,
}


def drawn(content: bytes, image_format: ImageFormat, size: tuple[int, int] = SIZE) -> list[tuple[Image.Image, float]]:
    header = ImageHeader(format=image_format, width=size[0], height=size[1])
    pictures = draw(read_frames(content, image_format), header)
    return [(picture.convert("RGBA"), milliseconds) for picture, milliseconds in pictures]


def visible(image: Image.Image) -> bytes:
    """The pixels, of which those without any alpha have no colour."""
    made = Image.new("RGBA", image.size)
    made.paste(image, mask=image.getchannel("A").point(lambda alpha: 255 if alpha else 0))
    return made.tobytes()


def pixel(image: Image.Image, at: tuple[int, int]) -> object:
    return image.getpixel(at)


@pytest.mark.parametrize("image_format", MAKERS)
def test_keeps_frames_and_clears_their_area(image_format: ImageFormat) -> None:
    parts = [
        Part(image=RED),
        Part(image=DOT, at=(4, 4), disposal=CLEAR),
        Part(image=DOT, at=(20, 4), disposal=KEEP),
    ]
    _, second, third = (each for each, _ in drawn(MAKERS[image_format](SIZE, *parts), image_format))
    assert [pixel(second, at) for at in ((0, 0), (5, 5), (21, 5))] == [
        (255, 0, 0, 255),
        (0, 0, 255, 255),
        (255, 0, 0, 255),
    ]
    assert [pixel(third, at) for at in ((0, 0), (5, 5), (21, 5))] == [(255, 0, 0, 255), NOTHING, (0, 0, 255, 255)]


@pytest.mark.parametrize("image_format", [ImageFormat.GIF, ImageFormat.PNG])
def test_restores_what_was_there_before(image_format: ImageFormat) -> None:
    parts = [Part(image=RED), Part(image=GREEN, disposal=RESTORE), Part(image=DOT, at=(4, 4))]
    _, second, third = (each for each, _ in drawn(MAKERS[image_format](SIZE, *parts), image_format))
    assert pixel(second, (0, 0)) == (0, 255, 0, 255)
    assert [pixel(third, at) for at in ((0, 0), (5, 5))] == [(255, 0, 0, 255), (0, 0, 255, 255)]


def test_first_frame_that_is_restored_leaves_nothing() -> None:
    parts = [Part(image=RED, disposal=RESTORE), Part(image=DOT)]
    for image_format in (ImageFormat.GIF, ImageFormat.PNG):
        second, _ = drawn(MAKERS[image_format](SIZE, *parts), image_format)[1]
        assert [pixel(second, at) for at in ((5, 5), (20, 20))] == [(0, 0, 255, 255), NOTHING]


@pytest.mark.parametrize("image_format", [ImageFormat.PNG, ImageFormat.WEBP])
def test_blends_or_replaces(image_format: ImageFormat) -> None:
    half = Image.new("RGBA", (10, 10), (0, 0, 255, 128))
    for blend, expected in ((True, (127, 0, 128, 255)), (False, (0, 0, 255, 128))):
        content = MAKERS[image_format](SIZE, Part(image=RED), Part(image=half, at=(4, 4), blend=blend))
        second, _ = drawn(content, image_format)[1]
        assert pixel(second, (5, 5)) == expected


def _random_parts(image_format: ImageFormat, seed: int) -> list[Part]:
    randomness = random.Random(seed)
    disposals = [KEEP, CLEAR] if image_format is ImageFormat.WEBP else [KEEP, CLEAR, RESTORE]
    parts = []
    for index in range(8):
        width, height = randomness.randrange(1, 20), randomness.randrange(1, 20)
        image = gradient(width, height).convert("RGBA")
        # Pillow blends half transparent pixels of PNG files with the colour of invisible ones below.
        levels = (0, 90, 255) if image_format is ImageFormat.WEBP else (0, 255)
        alpha = [randomness.choice(levels) for _ in range(width)]
        image.putalpha(Image.frombytes("L", (width, 1), bytes(alpha)).resize((width, height)))
        at = 2 * randomness.randrange((SIZE[0] - width) // 2 + 1), 2 * randomness.randrange((SIZE[1] - height) // 2 + 1)
        disposal = randomness.choice(disposals)
        # Pillow also restores too much where such a frame is blended.
        blend = disposal is not RESTORE and randomness.random() < 0.5
        part = Part(image=image, at=at, disposal=disposal, blend=blend)
        # Pillow takes the colour of a first frame that does not cover the canvas for that of the canvas.
        parts.append(replace(part, image=RED, at=(0, 0)) if index == 0 else part)
    return parts


@pytest.mark.parametrize("image_format", MAKERS)
@pytest.mark.parametrize("seed", range(12))
def test_draws_as_pillow_does(image_format: ImageFormat, seed: int) -> None:
    content = MAKERS[image_format](SIZE, *_random_parts(image_format, seed))
    found, expected = drawn(content, image_format), frames_of(content)
    assert len(found) == len(expected) == 8
    for (picture, _), (wanted, _) in zip(found, expected, strict=True):
        a, b = visible(picture), visible(wanted)
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 2


@pytest.mark.parametrize("image_format", MAKERS)
def test_canvas_is_transparent_at_first(image_format: ImageFormat) -> None:
    content = MAKERS[image_format](SIZE, Part(image=DOT, at=(4, 4)), Part(image=DOT, at=(20, 4)))
    assert [pixel(picture, (0, 0)) for picture, _ in drawn(content, image_format)] == [NOTHING, NOTHING]


@pytest.mark.parametrize("image_format", MAKERS)
def test_frames_of_ten_milliseconds_or_fewer_are_shown_for_a_hundred(image_format: ImageFormat) -> None:
    parts = [Part(image=RED, milliseconds=each) for each in (0, 10, 20, 1230)]
    assert [each for _, each in drawn(MAKERS[image_format](SIZE, *parts), image_format)] == [100, 100, 20, 1230]


def test_part_of_a_gif_frame_beyond_the_canvas_is_cut_off() -> None:
    content = gif(SIZE, Part(image=RED), Part(image=DOT, at=(35, 25)), Part(image=DOT, at=(400, 400), disposal=CLEAR))
    _, (second, _), (third, _) = drawn(content, ImageFormat.GIF)
    assert second.size == third.size == SIZE
    assert pixel(third, (39, 29)) == (0, 0, 255, 255)


def test_first_frame_enlarges_the_canvas_of_a_gif() -> None:
    content = gif((1, 1), Part(image=RED), Part(image=GREEN))
    assert [each.size for each, _ in drawn(content, ImageFormat.GIF, SIZE)] == [SIZE, SIZE]


@pytest.mark.parametrize("image_format", MAKERS)
def test_damaged_frame_ends_the_animation(image_format: ImageFormat) -> None:
    content = bytearray(MAKERS[image_format](SIZE, *(Part(image=gradient(*SIZE).convert("RGBA")) for _ in range(4))))
    at = content.rindex(
        {ImageFormat.GIF: b"!\xf9\x04", ImageFormat.PNG: b"fdAT", ImageFormat.WEBP: b"VP8L"}[image_format]
    )
    if image_format is ImageFormat.GIF:
        # Codes of more bits than there can be.
        content[at + 8 + 10 + 768] = 0x20
    else:
        content[at + 12] ^= 0xFF
    assert 1 <= len(drawn(bytes(content), image_format)) <= 3


@pytest.mark.parametrize("image_format", MAKERS)
def test_file_cut_anywhere_gives_the_frames_before(image_format: ImageFormat) -> None:
    whole = MAKERS[image_format](SIZE, *(Part(image=gradient(*SIZE).convert("RGBA")) for _ in range(5)))
    counts = [len(drawn(whole[:length], image_format)) for length in range(60, len(whole), 37)]
    assert counts == sorted(counts)
    assert counts[-1] >= 3


def test_interlaced_frames_and_a_shared_palette_of_a_gif() -> None:
    first, second = gradient(*SIZE).quantize(64), gradient(*SIZE).quantize(64).rotate(180)
    data = io.BytesIO()
    first.save(data, "GIF", save_all=True, append_images=[second], interlace=1, duration=50)
    content = data.getvalue()
    for (picture, _), (wanted, _) in zip(drawn(content, ImageFormat.GIF), frames_of(content), strict=True):
        assert picture.tobytes() == wanted.tobytes()
