"""Files whose data ends early are distinguished from those that are merely small."""

import struct
import zlib

import pytest
from PIL import Image

from harness.images import PNG_SIGNATURE, encoded, gif_frame, gif_header, gradient, noise, png_chunk, png_header
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.recipe import Preset, Recipe
from image_service.errors import CorruptImage
from image_service.imaging.formats.completeness import check_length
from tests.unit.imaging.render.rendered import Make

BLANK = Image.new("L", (1000, 1000), 255)
SMALLEST = {
    "JPEG": encoded(BLANK, "JPEG", optimize=True, quality=1),
    "JPEG of four channels": encoded(BLANK.convert("CMYK"), "JPEG", optimize=True, quality=1),
    "JPEG with less colour": encoded(BLANK.convert("RGB"), "JPEG", optimize=True, quality=1, subsampling=2),
    "progressive JPEG": encoded(BLANK.convert("RGB"), "JPEG", progressive=True, quality=1),
    "PNG": encoded(BLANK, "PNG", compress_level=9),
    "PNG of one bit": encoded(BLANK.convert("1"), "PNG", compress_level=9),
    "GIF": encoded(BLANK, "GIF"),
    "tiny JPEG": encoded(Image.new("L", (1, 1)), "JPEG"),
    "tiny PNG": encoded(Image.new("L", (1, 1)), "PNG"),
    "tiny GIF": encoded(Image.new("L", (1, 1)), "GIF"),
    "WebP": encoded(BLANK, "WEBP", lossless=True),
}


def format_of(name: str) -> ImageFormat:
    return next(each for each in ImageFormat if each.value.upper() in name.upper())


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_whole_file_is_long_enough(name: str) -> None:
    check_length(SMALLEST[name], ImageHeader(format=format_of(name), width=1000, height=1000))


def announcing(content: bytes, width: int, height: int) -> bytes:
    """Return a JPEG file with another size in its frame header."""
    at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


TOO_SHORT = {
    "PNG without pixels": png_header(7070, 7070) + png_chunk(b"IEND", b""),
    "PNG of a row": png_header(7070, 7070)
    + png_chunk(b"IDAT", zlib.compress(bytes(7070 * 3 + 1)))
    + png_chunk(b"IEND", b""),
    "GIF of a code": gif_header(7070, 7070) + gif_frame(0, 0, 7070, 7070) + b"\2\2\x4c\1\0;",
    "JPEG": announcing(encoded(gradient(64, 64), "JPEG"), 7000, 7000),
    "progressive JPEG": announcing(encoded(gradient(64, 64), "JPEG", progressive=True), 7000, 7000),
}


@pytest.mark.parametrize("name", TOO_SHORT)
def test_file_that_is_too_short_is_corrupt_before_memory_is_taken(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.core.new", None)
    with pytest.raises(CorruptImage, match="too short"):
        make(TOO_SHORT[name])


def test_other_files_have_no_least_length() -> None:
    content = announcing(encoded(gradient(64, 64), "JPEG"), 7000, 7000)
    for image_format, each in (
        (ImageFormat.JPEG, content.replace(b"\xff\xc0", b"\xff\xc9")),
        (ImageFormat.JPEG, content[: content.index(b"\xff\xda")]),
        (ImageFormat.JPEG, content.replace(b"\xff\xc0", b"\xff\xfe")),
        (ImageFormat.GIF, gif_header(7000, 7000)),
        (ImageFormat.WEBP, b""),
    ):
        check_length(each, ImageHeader(format=image_format, width=7000, height=7000))


ROWS = b"".join(b"\0" + noise(64, 1).tobytes() for _ in range(48))
STREAM = zlib.compress(ROWS)
ROW = 1 + 64 * 3


def png_of(*pieces: bytes) -> bytes:
    return png_header(64, 48) + b"".join(png_chunk(b"IDAT", piece) for piece in pieces) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("rest", [b"", b"junk after the end"], ids=["closed", "junk"])
@pytest.mark.parametrize("rows", [1, 24, 47])
def test_png_whose_stream_ends_before_its_last_row_is_corrupt(make: Make, rows: int, rest: bytes) -> None:
    content = png_of(zlib.compress(ROWS[: rows * ROW]) + rest)
    with pytest.raises(CorruptImage):
        make(content)
    assert make(content, truncated=True).small.size == (40, 30)


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def interlaced(picture: Image.Image, missing: int) -> bytes:
    """An interlaced PNG file of grey pixels without the last rows of its data."""
    width, height, pixels = *picture.size, picture.tobytes()
    lines = [pixels[at : at + width] for at in range(0, len(pixels), width)]
    rows = [
        b"\0" + line[left::across] for left, top, across, down in PASSES for line in lines[top::down] if line[left:]
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    stream = zlib.compress(b"".join(rows[: len(rows) - missing]))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (3, 5), (40, 30), (39, 29)])
def test_interlaced_png_whose_stream_ends_early_is_corrupt(make: Make, size: tuple[int, int]) -> None:
    picture = noise(*size).convert("L")
    for _ in range(20):
        # The pixels of a picture so small are those of the filling by chance.
        assert make(interlaced(picture, 0)).rendering.width == size[0]
    if size[1] > 1:
        with pytest.raises(CorruptImage):
            make(interlaced(picture, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_of_one_pixel_is_rendered_whatever_its_colour(make: Make, mode: str) -> None:
    for value in (0, 255):
        for _ in range(20):
            make(encoded(Image.new("L", (1, 1), value).convert(mode), "PNG"))


@pytest.mark.parametrize(
    "pieces",
    [
        (STREAM,),
        (STREAM[:-4],),
        (STREAM[:-2],),
        (STREAM, b"junk after the end"),
        tuple(STREAM[at : at + 1] for at in range(len(STREAM))),
        (b"", STREAM[:-3], b"", STREAM[-3:], b""),
    ],
    ids=["whole", "no checksum", "half a checksum", "junk", "bytes", "empty pieces"],
)
def test_png_with_all_rows_is_rendered(make: Make, pieces: tuple[bytes, ...]) -> None:
    assert make(png_of(*pieces)).small.tobytes() == make(png_of(STREAM)).small.tobytes()


WHOLE = Recipe(presets=(Preset(name="whole", width=700, height=500),))
CLOSED = {
    "sequential": {},
    "without subsampling": {"subsampling": 0},
    "with restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("part", [0.2, 0.7])
@pytest.mark.parametrize("options", CLOSED.values(), ids=CLOSED)
def test_jpeg_whose_data_ends_early_is_corrupt_although_it_is_closed(
    make: Make, options: dict[str, int], part: float, mode: str
) -> None:
    whole = encoded(noise(700, 500).convert(mode), "JPEG", **options)
    content = whole[: int(len(whole) * part)] + b"\xff\xd9"
    with pytest.raises(CorruptImage, match="before its last row"):
        make(content, WHOLE)
    assert make(content, WHOLE, truncated=True)["whole"].size == (700, 500)


def test_jpeg_that_ends_within_a_stuffed_byte_is_corrupt(make: Make) -> None:
    whole = encoded(noise(700, 500), "JPEG")
    with pytest.raises(CorruptImage, match="before its last row"):
        make(whole[: whole.index(b"\xff\0", len(whole) // 2) + 1] + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_grey_jpeg_is_rendered_although_it_looks_filled_in(make: Make, mode: str, *, progressive: bool) -> None:
    grey = {"L": 128, "RGB": (128, 128, 128), "CMYK": (127, 127, 127, 127)}[mode]
    image = Image.new(mode, (64, 64), grey)  # type: ignore[arg-type]  # a colour of that mode
    assert make(encoded(image, "JPEG", progressive=progressive)).small.size == (40, 40)


def test_progressive_jpeg_of_fewer_scans_is_rendered(make: Make) -> None:
    content = encoded(noise(700, 500), "JPEG", progressive=True)
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    # The tables of the second scan stand before it.
    assert make(content[: content.rindex(b"\xff\xc4", 0, second)] + b"\xff\xd9").small.size == (40, 29)
