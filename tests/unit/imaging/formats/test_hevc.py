"""HEVC: colours in sequence parameter sets, made bit by bit (ITU-T H.265 §7.3.2.2 and annex E)."""

import struct
from collections.abc import Iterator

import pytest

from harness.images import encoded, gradient
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import hevc, read_colour
from image_service.imaging.formats.colour import Cicp
from tests.unit.imaging.formats.av1_headers import Fields, bits

LONGEST = 256
NO_SETS: Fields = ((1, 1), (0, 1))
"""No reference pictures, neither for short nor for long."""
COLOURS: Fields = ((0, 1), (0, 1), (1, 1), (5, 3), (1, 1), (1, 1), (9, 8), (16, 8), (9, 8))
"""No aspect ratio, no overscan, and a description of colours: BT.2020 and PQ."""


def golomb(*values: int) -> Fields:
    return tuple((value + 1, 2 * (value + 1).bit_length() - 1) for value in values)


def parameter_set(  # noqa: PLR0913 (each is a part that a set can have)
    *,
    layers: int = 0,
    window: Fields = ((0, 1),),
    order: Fields = ((1, 1),),
    lists: Fields = ((0, 1),),
    blocks: Fields = ((0, 1),),
    references: Fields = NO_SETS,
    usability: Fields = ((1, 1), *COLOURS),
) -> bytes:
    """Return a set of 64x64 pixels."""
    sub_layers = [(0, 1), (0, 1)] * layers + ([(0, 2)] * (8 - layers) if layers else [])
    kept = golomb(0, 0, 0) * (layers + 1 if order == ((1, 1),) else 1)
    content = bits(
        (0, 4), (layers, 3), (1, 1), (5, 96), *sub_layers, *golomb(0, 1, 64, 64), *window, *golomb(0, 0), *golomb(4),
        *order, *kept, *golomb(0, 3, 0, 3, 0, 0), *lists, (0, 1), (1, 1), *blocks, *references, (1, 1), (0, 1),
        *usability, (1, 1),
    )  # fmt: skip
    return b"\x42\1" + content.replace(b"\0\0", b"\0\0\3")


def colours(*sets: bytes) -> list[tuple[int, int]]:
    units = b"".join(struct.pack(">H", len(each)) + each for each in sets)
    content = bytes(22) + b"\1" + struct.pack(">BH", 33, len(sets)) + units
    return list(hevc.colours(content, 0, len(content)))


def shapes() -> Iterator[bytes]:
    yield parameter_set()
    yield parameter_set(layers=2)
    yield parameter_set(layers=2, order=((0, 1),))
    yield parameter_set(window=((1, 1), *golomb(0, 1, 2, 3)))
    yield parameter_set(lists=((1, 1), (0, 1)))
    yield parameter_set(blocks=((1, 1), (7, 4), (7, 4), *golomb(0, 2), (1, 1)))
    short = (*golomb(2), *golomb(1, 1, 0), (1, 1), *golomb(0), (0, 1), (0, 1), *golomb(0, 0), (0, 1))
    yield parameter_set(references=short)
    yield parameter_set(references=(*golomb(0), (1, 1), *golomb(2), (3, 8), (1, 1), (4, 8), (0, 1)))
    yield parameter_set(usability=((1, 1), (1, 1), (255, 8), (1, 16), (1, 16), *COLOURS[1:]))
    yield parameter_set(usability=((1, 1), (1, 1), (1, 8), (1, 1), (0, 1), *COLOURS[2:]))


@pytest.mark.parametrize("unit", list(shapes()))
def test_colours_are_found_behind_every_part(unit: bytes) -> None:
    assert len(unit) < LONGEST
    assert colours(unit) == [(9, 16)]


@pytest.mark.parametrize(
    "unit",
    [
        parameter_set(usability=((0, 1),)),
        parameter_set(usability=((1, 1), (0, 1), (0, 1), (0, 1))),
        parameter_set(usability=((1, 1), (0, 1), (0, 1), (1, 1), (5, 3), (1, 1), (0, 1))),
        parameter_set(lists=((1, 1), (1, 1))),
        parameter_set(references=(*golomb(2), *golomb(0, 0), (1, 1))),
        parameter_set()[:20],
    ],
)
def test_sets_without_colours_or_with_other_parts_are_left_out(unit: bytes) -> None:
    assert colours(unit) == []
    assert colours(unit, parameter_set()) == [(9, 16)]


def test_colours_of_the_stream_count_where_the_boxes_are_silent() -> None:
    content = encoded(gradient(64, 64), "HEIF")
    at = content.index(b"hvcC")
    (length,) = struct.unpack_from(">I", content, at - 4)
    unit = parameter_set()
    inside = (bytes(22) + b"\1" + struct.pack(">BHH", 33, 1, len(unit)) + unit).ljust(length - 8, b"\0")
    assert len(inside) == length - 8
    silent = content.replace(b"colr", b"free").replace(content[at + 4 : at - 4 + length], inside)
    assert read_colour(silent, ImageFormat.HEIC) == (Cicp(9, 16),)
