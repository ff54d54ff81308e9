"""GIF files are written with exact colours where there are few, and small frames where little changes."""

import io

import pytest
from PIL import Image

from harness.images import gradient, noise
from image_service.domain.image import ImageFormat
from image_service.imaging.encoders import gif
from image_service.imaging.formats import find_metadata, read_dimensions


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.format == "GIF"
    return image


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("colours", [1, 2, 3, 4, 5, 100, 255])
def test_few_colours_are_exact(mode: str, colours: int) -> None:
    picture = gradient(64, 48).convert(mode).convert("RGB").quantize(colours).convert(mode)
    found = opened(gif.encode(picture, "#ffffff"))
    assert not found.has_transparency_data
    assert found.convert(mode).tobytes() == picture.tobytes()


def test_many_colours_are_close() -> None:
    picture = gradient(200, 150)
    found = opened(gif.encode(picture, "#ffffff")).convert("RGB")
    pairs = zip(found.tobytes(), picture.tobytes(), strict=True)
    assert sum(abs(a - b) for a, b in pairs) / (200 * 150 * 3) < 6


def test_pixels_are_either_opaque_or_invisible() -> None:
    picture = gradient(100, 50).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    alpha = opened(gif.encode(picture, "#ffffff")).convert("RGBA").getchannel("A")
    assert set(alpha.tobytes()) == {0, 255}
    assert [bool(alpha.getpixel((0, row))) for row in (0, 20, 30, 49)] == [False, False, True, True]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 2)])
@pytest.mark.parametrize("colour", [(1, 2, 3, 255), (1, 2, 3, 0)])
def test_plain_pictures_of_any_size(size: tuple[int, int], colour: tuple[int, ...]) -> None:
    content = gif.encode(Image.new("RGBA", size, colour), "#ffffff")
    assert read_dimensions(content, ImageFormat.GIF) == size
    assert find_metadata(content, ImageFormat.GIF) == ()
    found = opened(content).convert("RGBA").getpixel((0, 0))
    assert isinstance(found, tuple)
    assert found == colour if colour[3] else found[3] == 0


def test_only_what_changes_is_written_again() -> None:
    picture, writer = noise(200, 200), gif.Writer((200, 200), plays=0)
    writer.add(picture, 100)
    for index in range(10):
        picture = picture.copy()
        picture.paste((255, 0, 0), (10 * index, 5, 10 * index + 10, 15))
        writer.add(picture, 100)
    before = writer.size_bytes
    content = writer.finish()
    assert len(content) - before < 200
    assert len(content) < 2 * len(gif.encode(noise(200, 200), "#ffffff"))
    with Image.open(io.BytesIO(content)) as found:
        assert found.n_frames == 11  # type: ignore[attr-defined]  # of animations
        found.seek(10)
        assert found.convert("RGB").getpixel((95, 10)) == (255, 0, 0)


def test_long_durations_have_a_bound() -> None:
    writer = gif.Writer((2, 2), plays=100_000)
    for colour in ("red", "blue", "red"):
        writer.add(Image.new("RGB", (2, 2), colour), 10_000_000)
    image = opened(writer.finish())
    assert (image.info["duration"], image.info["loop"]) == (655_350, 65_535)


def test_without_frames_there_is_a_canvas() -> None:
    assert gif.Writer((3, 4)).finish().startswith(b"GIF89a\3\0\4\0")
