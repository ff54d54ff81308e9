import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from harness.images import (
    LONG,
    SHORT,
    bmp_header,
    deflated_tiff,
    display_p3,
    encoded,
    gif_frame,
    gif_header,
    gradient,
    jpeg_frame_header,
    jpeg_segment,
    linear_grey,
    noise,
    oriented,
    png,
    png_chunk,
    raw_tiff,
    tiff,
    tiff_size,
)
from image_service.domain.geometry import fit_inside
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat, Rendering
from image_service.domain.recipe import DEFAULT_RECIPE, Preset, Recipe
from image_service.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from image_service.imaging.decoders.heic import open_heic
from image_service.imaging.formats.jpeg_scans import check_scans
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render

SMALL = Recipe(presets=(Preset(name="small", width=40, height=40, quality=95),))


class Thumbnails:
    """The thumbnails of one file."""

    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering

    def __getitem__(self, preset: str) -> Image.Image:
        (made,) = (each for each in self.rendering.thumbnails if each.preset == preset)
        image = Image.open(made.path)
        image.load()
        assert image.get_format_mimetype() == made.content_type
        return image

    @property
    def small(self) -> Image.Image:
        return self["small"]


Make = Callable[..., Thumbnails]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(content: bytes, recipe: Recipe = SMALL, **options: Any) -> Thumbnails:  # noqa: ANN401  (limits)
        source = tmp_path / "source"
        source.write_bytes(content)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        limits = RenderLimits(**({"formats": tuple(ImageFormat)} | options))
        return Thumbnails(render(source, recipe, out, limits))

    return make


def assert_close(
    image: Image.Image, expected: tuple[int, ...], at: tuple[int, int] = (5, 5), tolerance: int = 6
) -> None:
    found = image.convert("RGB" if len(expected) == 3 else "RGBA").getpixel(at)
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True)), f"{found}, wanted {expected}"


def assert_alike(image: Image.Image, expected: Image.Image, tolerance: int = 12) -> None:
    assert image.size == expected.size
    difference = ImageChops.difference(image.convert("RGB"), expected.convert("RGB"))
    extremes = [channel.getextrema()[1] for channel in difference.split()]
    assert all(isinstance(high, (int, float)) and high <= tolerance for high in extremes), extremes


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "TIFF", "BMP"])
def test_makes_every_preset(make: Make, name: str) -> None:
    made = make(encoded(gradient(2600, 1300), name), DEFAULT_RECIPE)
    assert [each.preset for each in made.rendering.thumbnails] == ["100x100", "300x300", "1200x1200"]
    assert (made.rendering.width, made.rendering.height) == (2600, 1300)
    for each, size in zip(made.rendering.thumbnails, [(100, 50), (300, 150), (1200, 600)], strict=True):
        content = each.path.read_bytes()
        assert (each.width, each.height) == size
        assert each.content_type == "image/jpeg"
        assert each.size_bytes == len(content)
        assert each.sha256 == hashlib.sha256(content).hexdigest()
        # A GIF has 256 colours for all of them.
        assert_alike(made[each.preset], gradient(*size), tolerance=40 if name == "GIF" else 12)


def test_presets_of_any_shape_and_quality(make: Make) -> None:
    presets = (
        Preset(name="wide", width=300, height=20),
        Preset(name="tall", width=20, height=300),
        Preset(name="poor", width=200, height=200, quality=10),
        Preset(name="rich", width=200, height=200, quality=95),
    )
    made = make(encoded(noise(600, 400), "PNG"), Recipe(presets=presets))
    assert [(each.width, each.height) for each in made.rendering.thumbnails] == [
        (30, 20),
        (20, 13),
        (200, 133),
        (200, 133),
    ]
    assert made.rendering.thumbnails[2].size_bytes * 2 < made.rendering.thumbnails[3].size_bytes


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (39, 40), (17, 5)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_never_enlarges_and_keeps_one_pixel(make: Make, size: tuple[int, int], name: str) -> None:
    made = make(encoded(gradient(*size), name))
    assert made.small.size == fit_inside(*size, 40, 40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 700), height=st.integers(1, 700), orientation=st.integers(1, 8))
def test_geometry_holds_for_any_size(make: Make, width: int, height: int, orientation: int) -> None:
    image = Image.new("RGB", (width, height), "teal")
    made = make(encoded(image, "JPEG", exif=oriented(image, orientation)), DEFAULT_RECIPE)
    upright = (width, height) if orientation < 5 else (height, width)
    assert (made.rendering.width, made.rendering.height) == upright
    for box in (100, 300, 1200):
        assert made[f"{box}x{box}"].size == fit_inside(*upright, box, box)


FROM_UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From the upright to the stored picture, by orientation."""


@pytest.mark.parametrize("orientation", FROM_UPRIGHT)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_applies_orientation_once(make: Make, orientation: int, name: str) -> None:
    # In AVIF and HEIC, it is written as irot and imir boxes, the only place where it counts there.
    turn = FROM_UPRIGHT[orientation]
    upright = gradient(120, 60)
    stored = upright if turn is None else upright.transpose(turn)
    made = make(encoded(stored, name, quality=95, exif=oriented(stored, orientation)))
    assert (made.rendering.width, made.rendering.height) == (120, 60)
    assert_alike(made.small, gradient(40, 20))
    assert not made.small.getexif()


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_ignores_orientations_that_do_not_exist(make: Make, orientation: int) -> None:
    image = gradient(120, 60)
    assert_alike(make(encoded(image, "JPEG", exif=oriented(image, orientation))).small, gradient(40, 20))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0garbage!garbage!", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"],
)
def test_ignores_malformed_exif(make: Make, name: str, exif: bytes) -> None:
    assert make(encoded(gradient(120, 60), name, exif=exif)).small.size == (40, 20)


def test_ignores_orientation_in_xmp(make: Make) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for name in ("JPEG", "AVIF"):
        assert make(encoded(gradient(120, 60), name, xmp=xmp)).small.size == (40, 20)


def test_finds_orientation_after_the_pixels_of_a_png(make: Make) -> None:
    image = gradient(60, 120)
    chunk = png_chunk(b"eXIf", oriented(image, 6).removeprefix(b"Exif\0\0"))
    content = encoded(image, "PNG")
    assert make(content[:-12] + chunk + content[-12:]).small.size == (40, 20)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
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


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_takes_the_first_frame(make: Make, name: str) -> None:
    frames = [Image.new("RGB", (80, 60), colour) for colour in ("blue", "lime", "red")]
    made = make(encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=50))
    assert_close(made.small, (0, 0, 255), tolerance=10)
    assert getattr(made.small, "n_frames", 1) == 1


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_removes_all_metadata(make: Make, name: str, mode: str) -> None:
    image = gradient(80, 60).convert(mode)
    if mode == "RGBA" and name in {"PNG", "WEBP"}:
        image.putalpha(100)
    image = image.convert("RGB") if name == "JPEG" else image
    secret = b"secret"
    exif = image.getexif()
    exif[0x010E] = secret.decode()
    content = encoded(
        image, name, exif=exif.tobytes(), xmp=secret * 9, comment=secret, icc_profile=display_p3(), dpi=(300, 300)
    )
    small = make(content).small
    written = Path(small.filename).read_bytes()  # type: ignore[attr-defined]
    assert secret in content
    assert secret not in written
    assert not {"exif", "xmp", "comment", "icc_profile", "dpi"} & {key for key in small.info if key != "jfif"}


@pytest.mark.parametrize(
    "compression", [None, "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "group4"]
)
@pytest.mark.parametrize("big", [False, True])
def test_reads_tiff_of_every_compression(make: Make, compression: str | None, *, big: bool) -> None:
    mode = "1" if compression == "group4" else "RGB"
    image = gradient(200, 100).convert(mode)
    made = make(encoded(image, "TIFF", compression=compression, big_tiff=big))
    assert_alike(made.small, image.convert("RGB").resize((40, 20), Image.Resampling.BICUBIC), tolerance=25)


def test_ignores_invalid_tiff_tags_that_the_picture_does_not_need(make: Make) -> None:
    # EXIF and GPS directories beyond the end or in the pixels, and an invalid next page.
    nonsense = [(34665, LONG, 1, 2**32 - 1), (34853, LONG, 1, 200), (700, LONG, 2**32 - 1, 9)]
    content = raw_tiff(80, 80, bytes(RED) * 6400, *nonsense)
    at = content.index(bytes(RED)) - 4
    assert_close(make(content[:at] + struct.pack("<I", 5) + content[at + 4 :]).small, RED)


def test_reads_bmp_rows_in_either_order(make: Make) -> None:
    image = gradient(80, 40)
    rows = [image.crop((0, y, 80, y + 1)).tobytes("raw", "BGR") for y in range(40)]
    for content in (bmp_header(80, -40) + b"".join(rows), bmp_header(80, 40, length=12) + b"".join(reversed(rows))):
        assert_alike(make(content).small, gradient(40, 20))


def test_decodes_primary_image_of_heic_not_its_thumbnail() -> None:
    image = open_heic(io.BytesIO(encoded(gradient(640, 480), "HEIF", thumbnails=[64])))
    assert image.draft(None, (16, 12)) is None
    assert image.size == (640, 480)


@pytest.mark.parametrize("name", ["HEIF", "TIFF", "BMP"])
def test_refuses_format_that_is_not_enabled(make: Make, name: str) -> None:
    content = encoded(gradient(80, 40), name)
    with pytest.raises(UnsupportedFormat, match="accepted are AVIF, GIF, JPEG, PNG, WEBP"):
        make(content, formats=tuple(DEFAULT_FORMATS))


def test_refuses_default_format_that_is_disabled(make: Make) -> None:
    with pytest.raises(UnsupportedFormat, match="a GIF image; accepted are PNG"):
        make(encoded(gradient(80, 40), "GIF"), formats=(ImageFormat.PNG,))


def test_accepts_jpeg_without_its_end_marker(make: Make) -> None:
    for size in ((200, 100), (2000, 1000)):
        whole = encoded(gradient(*size), "JPEG", quality=95)
        assert_alike(make(whole[:-2]).small, gradient(40, 20))


def test_ignores_data_after_end_of_jpeg(make: Make) -> None:
    content = encoded(gradient(200, 100), "JPEG") + b"\xff\xda" * 500
    assert make(content).small.size == (40, 20)


def cut(
    name: str, at: float, *, size: tuple[int, int] = (200, 200), image: Image.Image | None = None, **options: object
) -> bytes:
    whole = encoded(image or noise(*size), name, **options)
    return whole[: int(len(whole) * at)]


CORRUPT = {
    **{f"{name} cut at {at}": cut(name, at) for name in ("JPEG", "PNG", "WEBP", "GIF", "AVIF") for at in (0.5, 0.9)},
    "large JPEG cut in its last rows": cut("JPEG", 0.97, size=(900, 900)),
    "progressive JPEG cut in a scan": cut("JPEG", 0.5, progressive=True),
    "JPEG cut after its tables": (whole := encoded(noise(64, 64), "JPEG"))[: whole.index(b"\xff\xda")],
    "JPEG of one colour, cut": encoded(Image.new("RGB", (400, 400), "navy"), "JPEG")[:-60],
    "JPEG of noise bytes": b"\xff\xd8" + encoded(gradient(8, 8), "JPEG")[2:200] + bytes(range(255)) * 20,
    "PNG with a damaged pixel chunk": encoded(noise(64, 64), "PNG").replace(b"IDAT", b"IDAT\0\0\0", 1),
    "GIF without pixels": gif_header(9, 9) + gif_frame(0, 0, 9, 9),
    "WebP of a header": encoded(noise(64, 64), "WEBP")[:40],
    "AVIF of a header": encoded(noise(64, 64), "AVIF")[:300],
    "HEIC cut in its pixels": cut("HEIF", 0.7),
    "TIFF cut in its pixels": cut("TIFF", 0.5),
    "TIFF without pixels": tiff(*tiff_size(9, 9)),
    "TIFF of an unknown compression": raw_tiff(9, 9, bytes(243), (259, SHORT, 1, 99)),
    "TIFF of 12 bits": raw_tiff(8, 8, bytes(96), (258, SHORT, 1, 12), grey=True),
    "TIFF of floating-point samples": encoded(Image.new("F", (8, 8)), "TIFF"),
    "TIFF of 32 bits": encoded(Image.new("I", (8, 8)), "TIFF"),
    "BMP cut in its pixels": cut("BMP", 0.5),
    "BMP without pixels": bmp_header(9, 9),
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT)
def test_damaged_file_is_corrupt(make: Make, content: bytes) -> None:
    with pytest.raises(CorruptImage, match="Export the image again"):
        make(content)


INCOMPLETE = {
    **{name: cut(name, 0.6, image=gradient(200, 200), interlace=0) for name in ("JPEG", "PNG", "GIF", "TIFF")},
    "progressive JPEG": cut("JPEG", 0.6, image=gradient(200, 200), progressive=True),
    "compressed TIFF": deflated_tiff(gradient(200, 200))[:-100],
    "BMP": bmp_header(200, -200) + gradient(200, 200).tobytes("raw", "BGR")[:60_000],
}


@pytest.mark.parametrize("content", INCOMPLETE.values(), ids=INCOMPLETE)
def test_renders_truncated_file_if_enabled(make: Make, content: bytes) -> None:
    with pytest.raises(CorruptImage):
        make(content)
    made = make(content, truncated=True)
    assert (made.rendering.width, made.rendering.height) == (200, 200)
    assert_alike(made.small.crop((2, 0, 38, 12)), gradient(40, 40).crop((2, 0, 38, 12)), tolerance=40)
    with pytest.raises(CorruptImage):
        make(content)


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "HEIF"])
def test_truncated_file_without_partial_decode_is_corrupt(make: Make, name: str) -> None:
    with pytest.raises(CorruptImage):
        make(cut(name, 0.7), truncated=True)


def test_refuses_tiff_with_overlapping_strips(make: Make) -> None:
    # Each strip is nearly the whole image, and all have the same position.
    content = raw_tiff(80, 80, bytes(3 * 6400), (273, SHORT, 20, 200), (278, LONG, 1, 79))
    with pytest.raises(ImageTooLarge, match="on top of each other"):
        make(content)


def test_refuses_unknown_content(make: Make) -> None:
    with pytest.raises(UnsupportedFormat):
        make(b"%!PS\n{} loop")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "TIFF", "BMP"])
def test_refuses_more_pixels_than_allowed(make: Make, name: str) -> None:
    content = encoded(gradient(100, 80), name)
    with pytest.raises(ImageTooLarge, match="100x80"):
        make(content, max_pixels=7999)
    assert make(content, max_pixels=8000).small.size == (40, 32)


def test_checks_size_that_the_decoder_reports(make: Make) -> None:
    # Two frame headers: the first gives a small size, but the decoder uses the second.
    content = encoded(gradient(300, 300), "JPEG")
    at = content.index(b"\xff\xc0")
    with pytest.raises(ImageTooLarge, match="300x300"):
        make(
            content[:at] + jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 3) + bytes(9)) + content[at:],
            max_pixels=5000,
        )


def test_decompression_bomb_error_is_image_too_large(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageTooLarge):
        make(encoded(gradient(100, 80), "WEBP", save_all=True, append_images=[gradient(100, 80).rotate(90)]))


def test_refuses_jpeg_of_1000_scans(make: Make) -> None:
    content = encoded(gradient(64, 64), "JPEG", progressive=True)
    start = content.index(b"\xff\xda")
    scan = content[start : content.index(b"\xff\xc4", start)]
    with pytest.raises(ImageTooLarge, match="more than 100 scans"):
        make(content[:start] + scan * 1000 + content[start:])


def test_refuses_sequential_jpeg_of_1000_scans(make: Make) -> None:
    # Each channel in a scan of its own, of which libjpeg accepts any number.
    scans = jpeg_segment(0xDA, bytes((1, 1, 0, 0, 63, 0))) * 1000
    with pytest.raises(ImageTooLarge, match="more than 100 scans"):
        make(b"\xff\xd8" + jpeg_frame_header(64, 64) + scans)


@pytest.mark.parametrize(
    "frames",
    [b"", jpeg_frame_header(9, 9, 0xC2), jpeg_frame_header(9, 9) * 2, jpeg_frame_header(9, 9)[:-10]],
    ids=["none", "progressive", "two", "cut"],
)
def test_counts_scans_of_other_frames(frames: bytes) -> None:
    with pytest.raises(ImageTooLarge):
        check_scans(b"\xff\xd8" + frames + jpeg_segment(0xDA, bytes((3, *range(9)))) * 102)


def test_counts_no_scans_in_metadata(make: Make) -> None:
    content = encoded(gradient(64, 64), "JPEG")
    assert make(content[:2] + jpeg_segment(0xFE, b"\xff\xda" * 500) + content[2:]).small.size == (40, 40)


def test_memory_error_of_decoder_is_not_a_verdict(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", exhausted)
    with pytest.raises(MemoryError):
        make(encoded(gradient(64, 64), "PNG"))


def test_decoder_error_without_free_memory_is_memory_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decoders that report a lack of memory as damage, as those of WebP and AVIF do.
    def refused(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refused)
    with pytest.raises(MemoryError):
        make(cut("WEBP", 0.5))


def test_missing_source_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        render(tmp_path / "nothing", SMALL, tmp_path)


def test_reads_a_gif_whose_screen_is_smaller_than_its_frame(make: Make) -> None:
    content = bytearray(encoded(Image.new("P", (80, 80), 3), "GIF"))
    content[6:10] = struct.pack("<HH", 8, 8)
    made = make(bytes(content))
    assert (made.rendering.width, made.rendering.height) == (80, 80)


def test_every_output_decodes_strictly(make: Make) -> None:
    made = make(encoded(noise(500, 400), "JPEG"), DEFAULT_RECIPE)
    for each in made.rendering.thumbnails:
        Image.open(io.BytesIO(each.path.read_bytes())).load()
