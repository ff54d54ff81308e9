"""File names and additional content do not change the picture; truncated files are refused."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from harness.images import encoded, noise
from image_service.errors import CorruptImage
from tests.golden.comparison import assert_alike
from tests.golden.files import FORMATS, with_gain_map, write
from tests.golden.pictures import scene, to_image
from tests.golden.reference import resize
from tests.golden.rendering import Make, boxes

WIDTH, HEIGHT = 360, 240
PICTURE = scene(WIDTH, HEIGHT)
SHOWN = resize(PICTURE, 180, 120)
BOX = boxes(180)
OTHER = Image.new("RGB", (WIDTH, HEIGHT), (0, 255, 0))
NUMBER_OF_IMAGES, IMAGE_LIST = 0xB001, 0xB002
"""Tags of a multi-picture index (CIPA DC-007 §5.2.3)."""
NAMES = ("photo.jpg", "photo.png", "photo.gif", "photo.svg", "photo", "photo.webp.exe", ".avif")


@pytest.mark.parametrize("image_format", [each for each in FORMATS if each != "gif"])
def test_file_name_does_not_matter(make: Make, image_format: str) -> None:
    content = write(to_image(PICTURE), image_format)
    for name in NAMES:
        assert_alike(make(content, BOX, name=name).pixels(180), SHOWN)


def test_multi_picture_file_gives_the_first(make: Make) -> None:
    content = encoded(to_image(PICTURE), "MPO", save_all=True, append_images=[OTHER, OTHER], quality=98)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 3)
    for name in ("photo.mpo", "photo.jpg"):
        assert_alike(make(content, BOX, name=name).pixels(180), SHOWN)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}])
def test_ultra_hdr_gives_base_picture(make: Make, options: dict[str, object]) -> None:
    gain_map = write(to_image(np.full((HEIGHT // 4, WIDTH // 4), 0.9)), "jpeg")
    content = with_gain_map(write(to_image(PICTURE), "jpeg", **options), gain_map)
    index = JpegImageFile(io.BytesIO(content))._getmp()
    assert index
    assert index[NUMBER_OF_IMAGES] == 2
    start = content.index(b"MPF\0") + 4 + index[IMAGE_LIST][1]["DataOffset"]
    assert content[start:] == gain_map
    made = make(content, BOX)
    assert (made.rendering.width, made.rendering.height) == (WIDTH, HEIGHT)
    assert_alike(made.pixels(180), SHOWN)


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("image_format", FORMATS)
def test_truncated_file_is_corrupt(make: Make, image_format: str, part: float) -> None:
    content = write(noise(240, 180), image_format)
    with pytest.raises(CorruptImage):
        make(content[: int(len(content) * part)], BOX)


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("mode", ["L", "RGBA", "progressive", "CMYK"])
def test_truncated_file_of_unusual_mode_is_corrupt(make: Make, mode: str, part: float) -> None:
    image = noise(240, 180)
    content = {
        "L": lambda: write(image.convert("L"), "png"),
        "RGBA": lambda: write(Image.merge("RGBA", (*image.split(), image.getchannel(0))), "webp", lossless=True),
        "progressive": lambda: write(image, "jpeg", progressive=True),
        "CMYK": lambda: write(image.convert("CMYK"), "jpeg"),
    }[mode]()
    with pytest.raises(CorruptImage):
        make(content[: int(len(content) * part)], BOX)
