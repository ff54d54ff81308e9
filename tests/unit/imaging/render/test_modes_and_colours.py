import struct
from typing import Literal

import pytest
from PIL import Image

from harness.images import (
    SHORT,
    display_p3,
    encoded,
    linear_grey,
    png,
    png_chunk,
    raw_tiff,
)
from image_service.domain.recipe import Preset, Recipe
from tests.unit.imaging.render.rendered import Make, assert_close


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "TIFF"])
def test_converts_colours_to_srgb(make: Make, name: str) -> None:
    made = make(encoded(Image.new("RGB", (80, 80), (200, 100, 50)), name, quality=95, icc_profile=display_p3()))
    # (200, 100, 50) in Display P3 is a more saturated orange in sRGB.
    assert_close(made.small, (213, 95, 33), tolerance=8)
    assert "icc_profile" not in made.small.info


def test_converts_colours_under_transparency(make: Make) -> None:
    made = make(encoded(Image.new("RGBA", (80, 80), (200, 100, 50, 128)), "PNG", icc_profile=display_p3()))
    assert_close(made.small, (213, 95, 33, 128), tolerance=14)


def test_converts_grey_with_a_profile(make: Make) -> None:
    made = make(encoded(Image.new("L", (80, 80), 55), "PNG", icc_profile=linear_grey()))
    assert_close(made.small, (128, 128, 128), tolerance=4)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", display_p3()[:200], linear_grey(), bytes(5 * 1024 * 1024)],
    ids=["malformed", "truncated", "of another colour space", "enormous"],
)
def test_ignores_profiles_that_do_not_fit(make: Make, profile: bytes) -> None:
    made = make(encoded(Image.new("RGB", (80, 80), (200, 100, 50)), "WEBP", quality=95, icc_profile=profile))
    assert_close(made.small, (200, 100, 50))


def test_does_not_convert_srgb(make: Make) -> None:
    from PIL import ImageCms  # noqa: PLC0415 (only here)

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = make(encoded(Image.new("RGB", (80, 80), (200, 100, 50)), "PNG", icc_profile=profile))
    assert_close(made.small, (200, 100, 50), tolerance=3)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_converts_cmyk(make: Make, name: str) -> None:
    made = make(encoded(Image.new("CMYK", (80, 80), (0, 255, 255, 0)), name, quality=95))
    assert_close(made.small, (255, 0, 0))


def test_scales_16_bit_grey_instead_of_clipping_it(make: Make) -> None:
    made = make(png(80, 80, struct.pack(">H", 0x8000) * 6400, depth=16, colour=0))
    assert_close(made.small, (128, 128, 128))
    assert made.small.mode == "L"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("grey", [True, False])
def test_scales_16_bit_tiff_too(make: Make, order: Literal["<", ">"], *, grey: bool) -> None:
    pixels = struct.pack(f"{order}H", 0x8000) * 6400 * (1 if grey else 3)
    made = make(raw_tiff(80, 80, pixels, (258, SHORT, 1, 16), grey=grey, order=order))
    assert_close(made.small, (128, 128, 128))


def test_scales_1_bit_images_smoothly(make: Make) -> None:
    board = Image.new("1", (80, 80))
    board.paste(1, (0, 0, 40, 80))
    small = make(encoded(board, "PNG")).small
    assert_close(small, (255, 255, 255))
    assert_close(small, (0, 0, 0), at=(30, 5))


def test_ignores_opaque_alpha_channel(make: Make) -> None:
    assert make(encoded(Image.new("RGBA", (80, 80), "red"), "PNG")).small.format == "JPEG"


RED = (255, 0, 0)
TRANSPARENT = {
    "RGBA": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "PNG"),
    "LA": encoded(Image.new("LA", (80, 80), (76, 0)), "PNG"),
    "palette with one transparent entry": encoded(Image.new("P", (80, 80), 0), "PNG", transparency=0),
    "palette with alpha values": encoded(Image.new("P", (80, 80), 0), "PNG", transparency=b"\0\x80"),
    "GIF": encoded(Image.new("P", (80, 80), 0), "GIF", transparency=0),
    "WebP": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "WEBP", lossless=True),
    "JPEG XL": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "JXL"),
    "HEIC": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "HEIF"),
    "TIFF": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "TIFF"),
    "AVIF": encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)), "AVIF"),
    "8-bit colour key": png(80, 80, bytes(RED) * 6400, png_chunk(b"tRNS", bytes((0, 255, 0, 0, 0, 0)))),
    "16-bit colour key": png(80, 80, b"\xff\xff\0\0\0\0" * 6400, png_chunk(b"tRNS", b"\xff\xff\0\0\0\0"), depth=16),
    "8-bit grey key": png(80, 80, b"\x07" * 6400, png_chunk(b"tRNS", b"\0\x07"), colour=0),
    "16-bit grey key": png(80, 80, b"\x12\x34" * 6400, png_chunk(b"tRNS", b"\x12\x34"), depth=16, colour=0),
    "4-bit grey key": png(80, 80, b"\x77" * 3200, png_chunk(b"tRNS", b"\0\x07"), depth=4, colour=0),
    "2-bit grey key": png(80, 80, b"\xaa" * 1600, png_chunk(b"tRNS", b"\0\x02"), depth=2, colour=0),
    "1-bit grey key": png(80, 80, b"\xff" * 800, png_chunk(b"tRNS", b"\0\x01"), depth=1, colour=0),
}


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_keeps_transparency_of_every_kind(make: Make, content: bytes) -> None:
    small = make(content).small
    assert small.format == "WEBP"
    assert small.getchannel("A").getextrema() == (0, 0)


def test_invisible_colours_do_not_bleed_into_edges(make: Make) -> None:
    image = Image.new("RGBA", (640, 640), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (160, 160, 480, 480))
    big = make(encoded(image, "PNG"), Recipe(presets=(Preset(name="small", width=99, height=99, quality=100),))).small
    red, green, _, alpha = big.convert("RGBa").split()
    # Premultiplied, the green of the invisible surroundings must not appear, whatever the edge's alpha.
    assert green.getextrema()[1] <= 40  # type: ignore[operator]
    assert red.getextrema()[1] >= 240  # type: ignore[operator]
    assert alpha.getextrema() == (0, 255)
