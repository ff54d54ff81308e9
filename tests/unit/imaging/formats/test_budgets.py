"""What a file may repeat: its parts are counted, and what may stand in it once is read once."""

import zlib
from pathlib import Path

import pytest

from harness.images import display_p3, encoded, gradient, jpeg_segment, oriented, png_chunk
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Preset, Recipe
from image_service.errors import ImageTooLarge
from image_service.imaging.formats import read_colour, read_orientation, strip
from image_service.imaging.formats.colour import Profile
from image_service.imaging.formats.jpeg_scans import check_scans
from image_service.imaging.limits import MAX_PROFILE_BYTES
from image_service.imaging.render.pipeline import render

PICTURE = gradient(120, 60)
PNG, JPEG, GIF = (encoded(PICTURE, name) for name in ("PNG", "JPEG", "GIF"))
PNG_PIXELS, JPEG_SCAN, GIF_BLOCKS = PNG.index(b"IDAT") - 4, JPEG.index(b"\xff\xda"), 13 + 3 * 256
SMALL = Recipe(presets=(Preset(name="small", width=40, height=40, quality=95),))

FLOODS = {
    "comments": (JPEG, JPEG_SCAN, jpeg_segment(0xFE, b"") * 5000),
    "restart intervals": (JPEG, JPEG_SCAN, jpeg_segment(0xDD, b"\0\0") * 5000),
    "EXIF segments": (JPEG, JPEG_SCAN, jpeg_segment(0xE1, b"Exif\0\0") * 5000),
    "profile segments": (JPEG, JPEG_SCAN, jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1") * 5000),
    "quantization tables": (JPEG, JPEG_SCAN, jpeg_segment(0xDB, bytes((0, *[1] * 64))) * 5000),
    "texts": (PNG, PNG_PIXELS, png_chunk(b"tEXt", b"a\0") * 40_000),
    "empty pixel chunks": (PNG, PNG_PIXELS, png_chunk(b"IDAT", b"") * 40_000),
    "palettes": (PNG, PNG_PIXELS, png_chunk(b"PLTE", bytes(3)) * 40_000),
    "pixel chunks after the pixels": (PNG, len(PNG) - 12, png_chunk(b"IDAT", b"a") * 40_000),
    "GIF comments": (GIF, GIF_BLOCKS, b"!\xfe\0" * 150_000),
    "GIF comment blocks": (GIF, GIF_BLOCKS, b"!\xfe" + b"\1a" * 150_000 + b"\0"),
    "GIF junk": (GIF, GIF_BLOCKS, b"a" * 150_000),
}


@pytest.mark.parametrize(("content", "at", "flood"), FLOODS.values(), ids=FLOODS)
def test_file_of_too_many_parts_is_refused_before_a_decoder_sees_it(
    content: bytes, at: int, flood: bytes, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content[:at] + flood + content[at:])
    with pytest.raises(ImageTooLarge, match=r"more than [\d,]+ .* take too long to read"):
        render(source, SMALL, tmp_path)


@pytest.mark.parametrize("junk", [b"\xff" * 50_000, b"\xff\xd0" * 50_000, b"\xff\0" * 50_000, bytes(50_000)])
def test_junk_between_jpeg_segments_never_reaches_the_decoder(junk: bytes) -> None:
    assert strip(JPEG[:JPEG_SCAN] + junk + JPEG[JPEG_SCAN:], ImageFormat.JPEG) == JPEG


def test_first_exif_segment_of_jpeg_counts() -> None:
    turned, upright = (jpeg_segment(0xE1, oriented(PICTURE, value)) for value in (6, 1))
    stripped = strip(JPEG[:2] + turned + upright * 100 + JPEG[2:], ImageFormat.JPEG)
    assert stripped == JPEG[:2] + turned + JPEG[2:]


def damaged(chunk: bytes) -> bytes:
    """Return the chunk with a wrong checksum."""
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


def test_first_intact_transparency_of_png_counts() -> None:
    chunk, before, after = png_chunk(b"tRNS", bytes(6)), PNG[:PNG_PIXELS], PNG[PNG_PIXELS:]
    assert strip(before + damaged(chunk) + chunk * 50 + after, ImageFormat.PNG) == before + chunk + after


def test_first_intact_profile_and_exif_of_png_count() -> None:
    first, other = display_p3(), display_p3() + bytes(1)
    chunks = [png_chunk(b"iCCP", b"a\0\0" + zlib.compress(profile)) for profile in (first, other)]
    chunks += [png_chunk(b"eXIf", oriented(PICTURE, value)[6:]) for value in (6, 3)]
    content = PNG[:PNG_PIXELS] + damaged(chunks[1]) + damaged(chunks[3]) + b"".join(chunks) * 20 + PNG[PNG_PIXELS:]
    assert read_colour(content, ImageFormat.PNG) == (Profile(first),)
    assert read_orientation(content, ImageFormat.PNG) == 6


def test_only_one_profile_of_a_png_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = []
    decompressobj = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._inflater = decompressobj()

        def decompress(self, data: bytes, limit: int) -> bytes:
            made = self._inflater.decompress(data, limit)
            inflated.append(len(made))
            return made

        @property
        def unconsumed_tail(self) -> bytes:
            return self._inflater.unconsumed_tail

    monkeypatch.setattr("image_service.imaging.formats.png.zlib.decompressobj", Counting)
    bomb = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * MAX_PROFILE_BYTES)))
    content = PNG[:PNG_PIXELS] + bomb * 20 + PNG[PNG_PIXELS:]
    assert read_colour(content, ImageFormat.PNG) == ()
    assert inflated == [MAX_PROFILE_BYTES]
    assert strip(content, ImageFormat.PNG) == PNG
    assert inflated == [MAX_PROFILE_BYTES]


def test_what_follows_the_end_of_a_png_is_not_read() -> None:
    assert strip(PNG + png_chunk(b"IEND", b"") * 40_000, ImageFormat.PNG) == PNG


@pytest.mark.parametrize(
    ("pixels", "scans"), [(1, 100), (10_000_000, 100), (25_000_000, 40), (50_000_000, 20), (10**9, 20)]
)
def test_number_of_scans_depends_on_the_size(pixels: int, scans: int) -> None:
    progressive = encoded(gradient(64, 64), "JPEG", progressive=True)
    start = progressive.index(b"\xff\xda")
    scan = progressive[start : progressive.index(b"\xff\xc4", start)]
    head = progressive[:start]
    check_scans(head + scan * scans, pixels)
    with pytest.raises(ImageTooLarge, match=f"more than {scans} scans"):
        check_scans(head + scan * (scans + 1), pixels)
