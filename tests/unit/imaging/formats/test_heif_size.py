"""The size of a picture is what its coded data says, not only what the boxes around it say."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from harness.images import HEIC, avif_header, box, encoded, extents, gradient
from image_service.domain.image import ImageFormat
from image_service.errors import CorruptImage, ImageTooLarge
from image_service.imaging.formats.av1 import frame_size, units
from image_service.imaging.formats.heif_size import dimensions
from image_service.imaging.inspect import HeaderInspector

LARGE = (600, 450)
AVIF = encoded(gradient(*LARGE), "AVIF", speed=10)
TILED = encoded(gradient(*LARGE).convert("RGBA"), "AVIF", speed=10)
SEQUENCE = encoded(gradient(*LARGE), "AVIF", speed=10, save_all=True, append_images=[gradient(*LARGE).rotate(90)])
HEIF = encoded(gradient(*LARGE), "HEIF")


def claiming(content: bytes, width: int, height: int) -> bytes:
    """Return the file with another size in every box that gives one."""
    for old in (struct.pack(">II", *LARGE), struct.pack(">II", *(side << 16 for side in LARGE))):
        shift = 16 if old.startswith(struct.pack(">I", LARGE[0] << 16)) else 0
        content = content.replace(old, struct.pack(">II", width << shift, height << shift))
    return content


@pytest.mark.parametrize("content", [AVIF, TILED, SEQUENCE, HEIF], ids=["AVIF", "with alpha", "sequence", "HEIC"])
def test_coded_size_counts_where_boxes_claim_less(content: bytes, tmp_path: Path) -> None:
    small = claiming(content, 8, 8)
    assert small != content
    assert dimensions(content) == LARGE
    # HEVC pictures are padded to whole blocks, of up to 64 pixels a side.
    assert dimensions(small) == ((537, 393) if content is HEIF else LARGE)
    assert dimensions(claiming(content, 3000, 2000)) == (3000, 2000)
    path = tmp_path / "file"
    path.write_bytes(small)
    inspector = HeaderInspector(max_pixels=200_000, allowed=ImageFormat)
    with pytest.raises(ImageTooLarge, match="megapixels"):
        inspector.inspect(path)


def sequence_header() -> bytes:
    """The sequence header of ``AVIF``, as a unit of its own."""
    start = AVIF.index(b"mdat") + 4
    stream = AVIF[start:]
    unit = next(unit for unit in units(stream) if frame_size(stream, unit))
    return stream[unit.body - 2 : unit.end]


def av1_item(*extents_of_item: tuple[int, int], method: int = 0, inside: bytes = b"", rest: bytes = b"") -> bytes:
    """An AVIF file of one item that lies in the given places of what follows its boxes, or of its own data."""
    entry = box(b"infe", b"\2\0\0\0", struct.pack(">HH", 1, 0), b"av01\0")

    def file(shift: int) -> bytes:
        places = b"".join(struct.pack(">II", start + shift, length) for start, length in extents_of_item)
        location = struct.pack(">4sBBHHHHH", b"\1\0\0\0", 0x44, 0, 1, 1, method, 0, len(extents_of_item)) + places
        meta = box(
            b"meta",
            bytes(4),
            box(b"iloc", location),
            box(b"iinf", bytes(4), struct.pack(">H", 1), entry),
            box(b"iprp", box(b"ipco", extents(8, 8))),
            box(b"idat", inside),
        )
        return box(b"ftyp", b"avif\0\0\0\0avif") + meta

    return file(0 if method else len(file(0))) + rest


HEADER = sequence_header()
TEMPORAL_DELIMITER = b"\x12\0"
PADDING = b"\x7a\x82\0\0\0"
"""A unit of two bytes, whose length is written with one byte more than it takes."""


@pytest.mark.parametrize(
    "content",
    [
        av1_item((0, 100), rest=TEMPORAL_DELIMITER + HEADER),
        av1_item((0, 0), rest=HEADER),
        av1_item((0, 3), (10, 100), rest=HEADER[:3] + bytes(7) + HEADER[3:]),
        av1_item((0, 100), method=1, inside=PADDING + HEADER),
        avif_header(extents(8, 8), box(b"av1C", b"\x81\0\0\0", HEADER)),
    ],
    ids=["item", "item to the end of the file", "item in pieces", "item in a box", "configuration"],
)
def test_sequence_header_is_found_wherever_it_stands(content: bytes) -> None:
    assert dimensions(content) == LARGE


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_sequence_header_that_is_cut_off_is_left_to_the_decoder(length: int) -> None:
    assert dimensions(av1_item((0, 100), rest=HEADER[:length])) in {(8, 8), LARGE}


def bits(*fields: tuple[int, int]) -> bytes:
    """Return numbers, each with its length in bits, one after the other."""
    text = "".join(f"{value:0{length}b}" for value, length in fields if length)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8))


SIZE = ((15, 4), (15, 4), (11_999, 16), (8_999, 16))
PLAIN_POINT = ((0, 1), (0, 5), (0, 12), (8, 5), (0, 1))
HEADERS = {
    "reduced": bits((0, 3), (1, 1), (1, 1), (31, 5), *SIZE),
    "plain": bits((0, 3), (0, 1), (0, 1), (0, 1), *PLAIN_POINT, *SIZE),
    "timed": bits((0, 5), (1, 1), (1, 32), (1, 32), (1, 1), (1, 1), (0, 1), *PLAIN_POINT, *SIZE),
    "modelled": bits(
        *((0, 5), (1, 1), (1, 32), (1, 32), (0, 1), (1, 1), (9, 5), (1, 32), (3, 5), (3, 5)),
        *((1, 1), (1, 5)),
        *((1, 12), (3, 5), (1, 1), (7, 10), (7, 10), (0, 1), (1, 1), (2, 4)),
        *((1, 12), (3, 5), (0, 1), (0, 1)),
        *SIZE,
    ),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("extended", [False, True])
def test_sequence_headers_of_every_kind_are_read(header: bytes, *, extended: bool) -> None:
    unit = bytes((0x0A | 4 * extended,)) + b"\0" * extended + bytes((len(header),)) + header
    assert dimensions(av1_item((0, 200), rest=TEMPORAL_DELIMITER + unit)) == (12_000, 9_000)
    without_size = bytes((0x08 | 4 * extended,)) + b"\0" * extended + header
    assert dimensions(av1_item((0, len(without_size)), rest=without_size)) == (12_000, 9_000)


def test_frames_in_other_items_do_not_count() -> None:
    content = av1_item((0, 100), rest=HEADER)
    assert dimensions(content.replace(b"av01", b"Exif")) == (8, 8)


_TABLE = box(b"stbl", box(b"stsc", bytes(200_000)))
SAMPLES = avif_header(extents(8, 8)) + box(b"moov", box(b"trak", box(b"mdia", box(b"minf", _TABLE))))


@pytest.mark.parametrize(
    "content",
    [
        av1_item((0, 40_000), rest=TEMPORAL_DELIMITER * 20_000),
        avif_header(extents(8, 8)) + box(b"meta", bytes(4), box(b"iloc", bytes(200_000))),
        avif_header(extents(8, 8)) + box(b"meta", bytes(4), box(b"iref", bytes(4), box(b"dimg", bytes(200_000)))),
        SAMPLES,
    ],
    ids=["units", "items", "references", "samples"],
)
def test_file_of_too_many_items_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptImage, match="too many"):
        dimensions(content)


def parameter_set(*, layers: int, separate: bool) -> bytes:
    """A sequence parameter set of 6000x4000 pixels."""

    def golomb(value: int) -> tuple[int, int]:
        return value + 1, 2 * (value + 1).bit_length() - 1

    sub_layers = [(1, 1), (1, 1)] * layers + ([(0, 2)] * (8 - layers) if layers else []) + [(5, 96)] * layers
    chroma = [golomb(3), (0, 1)] if separate else [golomb(1)]
    content = bits((0, 4), (layers, 3), (1, 1), (5, 96), *sub_layers, golomb(0), *chroma, golomb(6000), golomb(4000))
    return b"\x42\1" + content.replace(b"\0\0", b"\0\0\3")


def configuration(*sets: bytes, kind: int = 33) -> bytes:
    units_of_kind = b"".join(struct.pack(">H", len(each)) + each for each in sets)
    return box(b"hvcC", bytes(22), b"\1", struct.pack(">BH", kind, len(sets)), units_of_kind)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("separate", [False, True])
def test_size_of_hevc_is_read_from_its_configuration(layers: int, *, separate: bool) -> None:
    whole = parameter_set(layers=layers, separate=separate)
    assert dimensions(avif_header(extents(8, 8), configuration(whole), brands=HEIC)) == (5937, 3937)
    assert dimensions(avif_header(extents(8, 8), configuration(whole, kind=34), brands=HEIC)) == (8, 8)
    assert dimensions(avif_header(extents(8, 8), configuration(whole[:10], whole), brands=HEIC)) == (5937, 3937)
    assert dimensions(avif_header(extents(8, 8), configuration(*[b"a"] * 100, whole), brands=HEIC)) == (8, 8)
    assert dimensions(avif_header(extents(8, 8), configuration(bytes(9)), brands=HEIC)) == (8, 8)


def test_pictures_are_decoded_at_their_coded_size() -> None:
    # Otherwise none of this mattered.
    assert Image.open(io.BytesIO(claiming(AVIF, 8, 8))).size == (8, 8)
    Image.open(io.BytesIO(claiming(AVIF, 8, 8))).load()
