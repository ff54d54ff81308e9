import io
import struct

import pytest
from PIL import Image

from harness.images import (
    LONG,
    SHORT,
    bmp_header,
    deflated_tiff,
    encoded,
    gif_frame,
    gif_header,
    gradient,
    noise,
    raw_tiff,
    tiff,
    tiff_size,
)
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat
from image_service.errors import CorruptImage, UnsupportedFormat
from image_service.imaging.decoders.heic import open_heic
from tests.unit.imaging.render.rendered import Make, assert_alike, assert_close

RED = (255, 0, 0)


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


@pytest.mark.parametrize("name", ["HEIF", "JXL", "TIFF", "BMP"])
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


def test_damaged_file_is_corrupt(make: Make) -> None:
    whole = encoded(noise(64, 64), "JPEG")
    damaged = {
        **{
            f"{name} cut at {at}": cut(name, at) for name in ("JPEG", "PNG", "WEBP", "GIF", "AVIF") for at in (0.5, 0.9)
        },
        "large JPEG cut in its last rows": cut("JPEG", 0.97, size=(900, 900)),
        "progressive JPEG cut in a scan": cut("JPEG", 0.5, progressive=True),
        "JPEG cut after its tables": whole[: whole.index(b"\xff\xda")],
        "JPEG of one colour, cut": encoded(Image.new("RGB", (400, 400), "navy"), "JPEG")[:-60],
        "JPEG of noise bytes": b"\xff\xd8" + encoded(gradient(8, 8), "JPEG")[2:200] + bytes(range(255)) * 20,
        "PNG with a damaged pixel chunk": encoded(noise(64, 64), "PNG").replace(b"IDAT", b"IDAT\0\0\0", 1),
        "GIF without pixels": gif_header(9, 9) + gif_frame(0, 0, 9, 9),
        "WebP of a header": encoded(noise(64, 64), "WEBP")[:40],
        "AVIF of a header": encoded(noise(64, 64), "AVIF")[:300],
        "HEIC cut in its pixels": cut("HEIF", 0.7),
        "JPEG XL cut in its pixels": cut("JXL", 0.7),
        "JPEG XL of a header": cut("JXL", 0.01),
        "TIFF cut in its pixels": cut("TIFF", 0.5),
        "TIFF without pixels": tiff(*tiff_size(9, 9)),
        "TIFF of an unknown compression": raw_tiff(9, 9, bytes(243), (259, SHORT, 1, 99)),
        "TIFF of 12 bits": raw_tiff(8, 8, bytes(96), (258, SHORT, 1, 12), grey=True),
        "TIFF of floating-point samples": encoded(Image.new("F", (8, 8)), "TIFF"),
        "TIFF of 32 bits": encoded(Image.new("I", (8, 8)), "TIFF"),
        "BMP cut in its pixels": cut("BMP", 0.5),
        "BMP without pixels": bmp_header(9, 9),
    }
    for name, content in damaged.items():
        with pytest.raises(CorruptImage, match="Export the image again"):
            pytest.fail(f"{name} is rendered: {make(content)}")


def test_renders_truncated_file_if_enabled(make: Make) -> None:
    incomplete = {
        **{name: cut(name, 0.6, image=gradient(200, 200), interlace=0) for name in ("JPEG", "PNG", "GIF", "TIFF")},
        "progressive JPEG": cut("JPEG", 0.6, image=gradient(200, 200), progressive=True),
        "compressed TIFF": deflated_tiff(gradient(200, 200))[:-100],
        "BMP": bmp_header(200, -200) + gradient(200, 200).tobytes("raw", "BGR")[:60_000],
    }
    for content in incomplete.values():
        with pytest.raises(CorruptImage):
            make(content)
        made = make(content, truncated=True)
        assert (made.rendering.width, made.rendering.height) == (200, 200)
        assert_alike(made.small.crop((2, 0, 38, 12)), gradient(40, 40).crop((2, 0, 38, 12)), tolerance=40)
        with pytest.raises(CorruptImage):
            make(content)


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "HEIF", "JXL"])
def test_truncated_file_without_partial_decode_is_corrupt(make: Make, name: str) -> None:
    with pytest.raises(CorruptImage):
        make(cut(name, 0.7), truncated=True)


def test_reads_a_gif_whose_screen_is_smaller_than_its_frame(make: Make) -> None:
    content = bytearray(encoded(Image.new("P", (80, 80), 3), "GIF"))
    content[6:10] = struct.pack("<HH", 8, 8)
    made = make(bytes(content))
    assert (made.rendering.width, made.rendering.height) == (80, 80)
