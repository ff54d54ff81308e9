"""The reader of JPEG XL headers, on files of libjxl's encoder, on headers written bit by bit, and on damaged ones."""

import random
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from harness.images import box, display_p3, encoded, gradient
from harness.jxl import CODESTREAM, CONTAINER, jxl, jxl_of_jpeg
from image_service.domain.image import ImageFormat
from image_service.errors import CorruptImage, ImageTooLarge
from image_service.imaging.decoders.libjxl_structures import ColourEncoding
from image_service.imaging.formats import find_metadata
from image_service.imaging.formats.content import FileContent
from image_service.imaging.formats.jxl import dimensions, read_header

PICTURE = gradient(24, 16)
SIZES = [(1, 1), (8, 8), (256, 256), (64, 48), (257, 256), (3, 7), (1600, 900), (9000, 3), (128, 64), (12, 10), (5, 4)]


def header(*fields: tuple[int, int]) -> bytes:
    """A codestream of fields, each a number and its bits; a zero byte follows."""
    value = at = 0
    for number, bits in fields:
        value |= number << at
        at += bits
    return CODESTREAM + value.to_bytes(at // 8 + 2, "little")


def side(pixels: int) -> Iterable[tuple[int, int]]:
    return (3, 2), (pixels - 1, 30)


def large(width: int, height: int, *fields: tuple[int, int]) -> bytes:
    return header((0, 1), *side(height), (0, 3), *side(width), *(fields or [(1, 1)]))


def found(content: bytes) -> set[str]:
    return {str(kind) for kind in find_metadata(content, ImageFormat.JXL)}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("container", [False, True])
def test_reads_the_size_that_the_encoder_wrote(size: tuple[int, int], *, container: bool) -> None:
    assert dimensions(jxl(Image.new("RGB", size), container=container)) == size


@pytest.mark.parametrize("fields", [{"orientation": 6}, {"duration": 3}, {"intrinsic": (77, 99)}])
def test_reads_the_size_as_stored_whatever_else_is_said(fields: dict[str, int]) -> None:
    assert read_header(jxl(PICTURE.convert("RGBA"), **fields))[:3] == (24, 16, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_reads_channels_of_every_depth(bits: int) -> None:
    content = jxl(bytes(24 * 16 * 2 * 4), size=(24, 16), mode="RGBA", bits=bits)
    assert read_header(content)[:3] == (24, 16, 1)


@pytest.mark.parametrize(
    ("ratio", "width"), [(1, 1000), (2, 1200), (3, 1333), (4, 1500), (5, 1777), (6, 1250), (7, 2000)]
)
def test_reads_width_from_its_ratio_to_the_height(ratio: int, width: int) -> None:
    assert dimensions(header((0, 1), *side(1000), (ratio, 3), (1, 1))) == (width, 1000)


def test_reads_largest_size() -> None:
    assert dimensions(large(2**30, 2**30)) == (2**30, 2**30)


def test_reads_codestream_in_parts() -> None:
    content = jxl(PICTURE, lossless=True)
    pieces = [content[:1], b"", content[1:3], content[3:]]
    parts = [box(b"jxlp", struct.pack(">I", number), piece) for number, piece in enumerate(pieces)]
    whole = CONTAINER + box(b"Exif", bytes(9000)) + b"".join(parts)
    assert dimensions(whole) == PICTURE.size
    assert dimensions(CONTAINER + struct.pack(">I4sQ", 1, b"jxlc", 16 + len(content)) + content) == PICTURE.size
    assert dimensions(CONTAINER + struct.pack(">I4s", 0, b"jxlc") + content) == PICTURE.size


def test_reads_file_that_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(CONTAINER + box(b"free", bytes(100_000)) + box(b"jxlc", jxl(PICTURE)))
    with FileContent(path) as content:
        assert dimensions(content) == PICTURE.size


DAMAGED = {
    "signature alone": CODESTREAM,
    "one byte of size": CODESTREAM + b"\0",
    "size cut off": large(5, 5)[:8],
    "fields cut off": header((1, 1), (0, 5), (1, 3), (0, 1), (1, 1), (7, 3))[:4],
    "container alone": CONTAINER,
    "container without a codestream": CONTAINER + box(b"Exif", bytes(99)),
    "container of parts without content": CONTAINER + box(b"jxlp", bytes(4)) * 3,
    "container of a part too short for its number": CONTAINER + box(b"jxlp", bytes(3)),
    "container of another codestream": CONTAINER + box(b"jxlc", b"\xff\xd8\xff\xe0"),
    "container of a short box": CONTAINER + struct.pack(">I4s", 7, b"free") + bytes(99),
    "container of a million boxes": CONTAINER + box(b"free") * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_header_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptImage):
        dimensions(content)


@pytest.mark.parametrize("count", [257, 4096])
def test_refuses_more_channels_than_any_picture_has(count: int) -> None:
    def with_channels(number: int) -> bytes:
        # No further fields, 8 bits a sample, 16 bits for computing, and so many channels.
        return large(5, 5, (0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (3, 2), (number - 1, 12))

    assert read_header(with_channels(256)).extra_channels == 256
    with pytest.raises(ImageTooLarge, match="more than 256 channels"):
        dimensions(with_channels(count))


P3 = ColourEncoding(0, 1, (0, 0), 11, (0,) * 6, 13, 0, 1)


def test_finds_profile_behind_channels() -> None:
    for picture in (PICTURE, PICTURE.convert("RGBA"), PICTURE.convert("LA")):
        grey = picture.mode == "LA"
        assert found(jxl(picture, lossless=True)) == set()
        assert grey or found(jxl(picture, colours=P3)) == set()
        assert grey or found(jxl(picture, lossless=True, profile=display_p3(), duration=2)) == {"icc"}


@pytest.mark.parametrize("kind", [1, 2, 5], ids=["depth", "spot colour", "colour filter"])
@pytest.mark.parametrize("profile", [0, 1])
def test_finds_profile_behind_channels_of_every_kind(kind: int, profile: int) -> None:
    selector = [(1, 2)] if kind == 1 else [(2, 2), (kind - 2, 4)]
    own = {1: [], 2: [(0x3C00, 16)] * 4, 5: [(0, 2)]}[kind]
    name = [(1, 2), (3, 4), (0x616263, 24)]
    channel = [(0, 1), *selector, (1, 1), (1, 2), (4, 4), (0, 2), *name, *own]
    start = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (2, 2), (0, 4)]  # two channels
    content = large(5, 5, *start, (1, 1), *channel, (0, 1), (0, 1), (profile, 1))
    assert found(content) == ({"icc"} if profile else set())


@pytest.mark.parametrize("blocks", [0, 1])
def test_finds_preview(blocks: int) -> None:
    size = [(2, 2), (1, 5)] if blocks else [(0, 2), (9, 6)]
    fields = [(0, 1), (1, 1), (0, 3), (0, 1), (1, 1), (blocks, 1), *size, (0, 3), *size, (0, 1), (0, 1), (0, 2), (1, 1)]
    content = large(5, 5, *fields, (0, 2), (1, 1), (1, 1))
    assert read_header(content).has_preview
    assert found(content) == {"thumbnail"}


def test_finds_metadata_in_boxes_also_compressed() -> None:
    exif = b"\0\0\0\0MM\0*\0\0\0\x08\0\1\x88\x25\0\4\0\0\0\1\0\0\0\x1a\0\0\0\0\0\1\0\2\0\2\0\0\0\2N\0\0\0\0\0\0\0"
    plain = jxl(PICTURE, boxes=[(b"Exif", exif, False), (b"xml ", b"<x:xmpmeta/>", False)])
    assert found(plain) == {"exif", "gps", "xmp"}
    compressed = jxl(PICTURE, boxes=[(b"Exif", exif, True), (b"xml ", b"<x:xmpmeta/>", True)])
    assert b"brob" in compressed
    assert found(compressed) == {"exif", "xmp"}
    assert found(jxl(PICTURE, boxes=[(b"jumb", b"abc" * 99, True)])) == set()


def test_metadata_before_damage_counts() -> None:
    content = jxl(PICTURE, boxes=[(b"Exif", bytes(99), False)])
    assert found(content + struct.pack(">I4s", 7, b"free") + bytes(99)) == {"exif"}


def test_thousands_of_damaged_headers_give_a_size_or_a_verdict() -> None:
    whole = [
        jxl(PICTURE.convert("RGBA"), lossless=True, profile=display_p3(), duration=3, orientation=5),
        jxl(PICTURE, boxes=[(b"Exif", bytes(64), True), (b"xml ", bytes(64), False)]),
        CONTAINER + b"".join(box(b"jxlp", bytes(4), bytes((each,))) for each in jxl(PICTURE)[:200]),
        jxl_of_jpeg(encoded(PICTURE, "JPEG")),
        large(5, 5, (0, 1), (1, 1)),
    ]
    randomness = random.Random(18181)
    started = time.process_time()
    for _ in range(6000):
        content = bytearray(randomness.choice(whole))
        for _ in range(randomness.randrange(1, 6)):
            at = randomness.randrange(2, max(3, min(len(content), 120)))
            match randomness.randrange(4) if at < len(content) else None:
                case 0:
                    content[at] ^= 1 << randomness.randrange(8)
                case 1:
                    content[at] = randomness.randrange(256)
                case 2:
                    content[at : at + 4] = randomness.choice([b"\xff" * 4, bytes(4), b"\0\0\0\1"])
                case 3:
                    del content[at : at + randomness.randrange(1, 9)]
        damaged = bytes(content[: randomness.randrange(1, len(content) + 1)])
        find_metadata(damaged, ImageFormat.JXL)
        try:
            width, height = dimensions(damaged)
        except (CorruptImage, ImageTooLarge):
            continue
        assert 1 <= height <= 2**30
        assert 0 <= width <= 2**31
    assert time.process_time() - started < 60
