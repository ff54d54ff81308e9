"""The colours in AV1 sequence headers."""

import pytest

from image_service.imaging.formats.av1 import colour, units
from tests.unit.imaging.formats.av1_headers import LEAST_TOOLS, bits, described, full, reduced, unit

P3 = described(12, 13)
HEADERS = {
    "reduced": reduced(*P3),
    "reduced, of the high profile": reduced(*described(12, 13, mono=()), profile=1),
    "reduced, of ten bits": reduced(*described(12, 13, depth=((1, 1),))),
    "reduced, professional, of eight bits": reduced(*described(12, 13), profile=2),
    "reduced, professional, of twelve bits": reduced(*described(12, 13, depth=((1, 1), (1, 1))), profile=2),
    "reduced, grey": reduced(*described(12, 13, mono=((1, 1),))),
    "full": full(*P3),
    "with frame numbers": full(*P3, tools=((1, 1), (2, 4), (1, 3), *LEAST_TOOLS[1:])),
    "with order hints": full(*P3, tools=((0, 1), (7, 3), (15, 4), (1, 1), (3, 2), (1, 1), (1, 1), (6, 3))),
    "with tools for screen content": full(*P3, tools=((0, 1), (0, 3), (0, 4), (0, 1), (0, 1), (1, 1), (0, 1), (1, 1))),
    "without tools for screen content": full(*P3, tools=((0, 1), (0, 3), (0, 4), (0, 1), (0, 1), (0, 1))),
    "with tools left open, and integer vectors": full(*P3, tools=(*LEAST_TOOLS[:4], (1, 1), (0, 1), (1, 1))),
}


def only_colour(header: bytes) -> tuple[int, int] | None:
    stream = unit(header)
    (found,) = units(stream)
    return colour(stream, found)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_code_points_are_read(header: bytes) -> None:
    assert only_colour(header) == (12, 13)


def test_header_without_a_description_gives_none() -> None:
    assert only_colour(reduced((0, 1), (0, 1), (0, 1))) is None
    assert only_colour(full((0, 1), (0, 1), (0, 1))) is None


def test_other_units_give_none() -> None:
    stream = unit(reduced(*P3), kind=2)
    assert [colour(stream, found) for found in units(stream)] == [None]


@pytest.mark.parametrize("header", [reduced(*P3), full(*P3)], ids=["reduced", "full"])
def test_header_that_is_cut_off_gives_none(header: bytes) -> None:
    # The last byte is of the matrix, which is not read.
    found = [only_colour(header[:length]) for length in range(len(header) - 2)]
    assert found == [None] * (len(header) - 2)


def test_only_the_beginning_of_a_header_is_read() -> None:
    # 32 operating points, each with a decoder model of the longest fields, take less than that.
    point = ((0, 12), (31, 5), (1, 1), (1, 1), (0, 65), (1, 1), (0, 4))
    long = bits(
        *((0, 5), (1, 1), (0, 64), (0, 1), (1, 1), (31, 5), (0, 42), (1, 1), (31, 5), *(point * 32)),
        *((7, 4), (7, 4), (7, 8), (7, 8), *LEAST_TOOLS, (0, 3), *P3),
    )
    assert 350 < len(long) < 512
    assert colour(unit(long[:100])[:2] + long, next(units(b"\x08" + long))._replace(body=2)) == (12, 13)
