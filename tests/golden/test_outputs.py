"""Output files: a picture of the reported type, without metadata."""

import io
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest
from PIL import Image

from harness.images import encoded, jpeg_segment, noise, png_chunk
from image_service.domain.recipe import DEFAULT_RECIPE
from tests.golden.files import FORMATS, exif, jpeg_segments, write
from tests.golden.pictures import scene, to_image
from tests.golden.profiles import ADOBE_RGB, DISPLAY_P3
from tests.golden.rendering import Make, Rendered, boxes

SECRET: Final = b"N 48.8584 E 2.2945"
XMP: Final = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + SECRET + b"</x:xmpmeta>"
OPAQUE, TRANSLUCENT = to_image(scene(360, 240)), to_image(scene(360, 240)).convert("RGBA")
TRANSLUCENT.putalpha(OPAQUE.getchannel(0))
LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81, table K.1: the luma quantisation at quality 50."""
_JPEG_SEGMENTS: Final = {0xE0: "JFIF", 0xDB: "DQT", 0xC0: "SOF0", 0xC2: "SOF2", 0xC4: "DHT", 0xDD: "DRI", 0xDA: "SOS"}
_HAS_ALPHA: Final = 0x10


def full_of_secrets(image: Image.Image, image_format: str, *, plain: bool) -> bytes:
    """Return the image with all metadata that the format can carry; a plain one needs no rotation or conversion."""
    thumbnail = encoded(Image.new("RGB", (64, 48), "red"), "JPEG", comment=SECRET)
    block = exif(1 if plain else 6, thumbnail=thumbnail, description=SECRET.decode())
    profile = {} if plain else {"icc_profile": DISPLAY_P3.content}
    content = write(image, image_format, exif=block, xmp=XMP, comment=SECRET, dpi=(300, 300), **profile)
    if image_format == "jpeg":
        photoshop = jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(SECRET)) + SECRET)
        return content[:2] + photoshop + jpeg_segment(0xE5, SECRET) + content[2:] + SECRET
    if image_format == "png":
        text = png_chunk(b"tEXt", b"Author\0" + SECRET) + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        return content[:33] + text + png_chunk(b"tIME", bytes(7)) + content[33:] + SECRET
    return content


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("image", [OPAQUE, TRANSLUCENT], ids=["opaque", "translucent"])
@pytest.mark.parametrize("plain", [False, True], ids=["rotated and converted", "plain"])
def test_output_has_no_metadata(make: Make, image_format: str, image: Image.Image, *, plain: bool) -> None:
    image = image.convert("RGB") if image_format in {"jpeg", "bmp"} else image
    content = full_of_secrets(image, image_format, plain=plain)
    assert SECRET in content or image_format == "bmp"
    made = make(content, DEFAULT_RECIPE)
    for thumbnail in made.rendering.thumbnails:
        written = thumbnail.path.read_bytes()
        assert SECRET not in written
        assert_bare(written, thumbnail.content_type)
        assert not made.image(thumbnail.output).getexif()


def assert_bare(content: bytes, content_type: str) -> None:
    """Check that the file holds a picture, and no part that could hold anything else."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.get_format_mimetype() == content_type
        assert not {"exif", "xmp", "comment", "icc_profile", "photoshop", "dpi"} & set(image.info) - jfif_density(image)
    if content_type == "image/jpeg":
        assert {code for code, _ in jpeg_segments(content)} <= set(_JPEG_SEGMENTS)
        # Version, density, and no thumbnail.
        assert [held[-2:] for code, held in jpeg_segments(content) if code == 0xE0] == [b"\0\0"]
        assert content.endswith(b"\xff\xd9")
        assert content.count(b"\xff\xd9") == 1
    else:
        assert content_type == "image/webp"
        chunks = dict(webp_chunks(content))
        assert chunks.keys() <= {b"VP8X", b"ALPH", b"VP8 ", b"VP8L"}
        assert chunks.get(b"VP8X", b"\0")[0] in {0, _HAS_ALPHA}


def jfif_density(image: Image.Image) -> set[str]:
    """Return the name of the density field where it has no unit: a JFIF header always has one."""
    return {"dpi"} if image.info.get("jfif_unit") == 0 else set()


def webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    position = 12
    while position < len(content):
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        yield content[position : position + 4], content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


@pytest.mark.parametrize("image_format", FORMATS)
def test_content_type_is_correct(make: Make, image_format: str) -> None:
    made = make(write(OPAQUE, image_format), DEFAULT_RECIPE)
    for thumbnail in made.rendering.thumbnails:
        assert thumbnail.content_type == "image/jpeg"
        assert made.image(thumbnail.output).format == "JPEG"
        assert thumbnail.size_bytes == thumbnail.path.stat().st_size


@pytest.mark.parametrize("quality", [30, 50, 82, 95])
def test_jpeg_has_the_requested_quality(make: Make, quality: int) -> None:
    tables, sampling = jpeg_parameters(make(write(noise(200, 200), "png"), boxes(100, quality=quality)).content(100))
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    expected = np.clip((np.array(LUMA) * scale + 50) // 100, 1, 255)
    assert np.abs(np.sort(tables[0]) - np.sort(expected.flat)).max() == 0
    assert sampling in {(0x22, 0x11, 0x11), (0x11, 0x11, 0x11)}


def test_default_jpeg_has_subsampled_chroma(make: Make) -> None:
    content = make(write(OPAQUE, "png"), DEFAULT_RECIPE).content("300x300")
    tables, sampling = jpeg_parameters(content)
    assert sampling == (0x22, 0x11, 0x11)
    assert tables[0][0] == (16 * 36 + 50) // 100


def test_grey_stays_grey(make: Make) -> None:
    content = make(write(OPAQUE.convert("L"), "png"), DEFAULT_RECIPE).content("300x300")
    _, sampling = jpeg_parameters(content)
    assert len(sampling) == 1


def jpeg_parameters(content: bytes) -> tuple[list[list[int]], tuple[int, ...]]:
    """Return the 8-bit quantisation tables in zigzag order, and the sampling factors of each component."""
    tables: list[list[int]] = []
    sampling: tuple[int, ...] = ()
    for code, held in jpeg_segments(content):
        if code == 0xDB:
            tables += [list(held[at + 1 : at + 65]) for at in range(0, len(held), 65)]
        if code in {0xC0, 0xC2}:
            sampling = tuple(held[at + 1] for at in range(6, len(held), 3))
    return tables, sampling


def test_converted_output_has_no_profile(make: Make) -> None:
    made: Rendered = make(write(OPAQUE, "png", icc_profile=ADOBE_RGB.content), DEFAULT_RECIPE)
    for thumbnail in made.rendering.thumbnails:
        assert b"ICC_PROFILE" not in thumbnail.path.read_bytes()
