"""AVIF and HEIC: whose colours count, which of several, and what is not believed."""

import struct

import pytest

from harness.images import HEIC, avif_header, box, display_p3, encoded, extents, gradient, linear_grey
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import read_colour
from image_service.imaging.formats.colour import SRGB, Cicp, Profile, Signal
from image_service.imaging.formats.heif_colour import has_high_depth
from image_service.imaging.limits import MAX_PROFILE_BYTES
from tests.unit.imaging.formats.av1_headers import avif, colr, described, ipma, nclx, pitm, reduced, unit

PICTURE = gradient(20, 10)
P3, LINEAR = nclx(12, 13), nclx(1, 8)
ICC = colr(b"prof", display_p3())
PROFILE = Profile(display_p3())
STREAM = unit(reduced(*described(12, 8)))
OTHER = unit(reduced(*described(9, 16)))
SILENT = unit(reduced((0, 1), (0, 1), (0, 1)))
GRID = box(b"infe", b"\2\0\0\0", struct.pack(">HH", 7, 0), b"grid\0")

CASES: dict[str, tuple[bytes, tuple[Signal, ...]]] = {
    "nothing": (avif(), ()),
    "nclx": (avif(P3), (Cicp(12, 13),)),
    "profile": (avif(ICC), (PROFILE,)),
    "restricted profile": (avif(colr(b"rICC", display_p3())), (PROFILE,)),
    "profile, then nclx": (avif(ICC, LINEAR), (PROFILE, Cicp(1, 8))),
    "nclx, then profile": (avif(LINEAR, ICC), (PROFILE, Cicp(1, 8))),
    "two profiles": (avif(ICC, colr(b"prof", linear_grey())), (PROFILE,)),
    "empty profile, then another": (avif(colr(b"prof"), ICC), (PROFILE,)),
    "profile that is too large": (avif(colr(b"prof", bytes(MAX_PROFILE_BYTES + 1)), P3), (Cicp(12, 13),)),
    "two nclx": (avif(P3, LINEAR), (Cicp(12, 13),)),
    "unknown kind": (avif(colr(b"none", bytes(7)), P3), (Cicp(12, 13),)),
    "empty colr": (avif(box(b"colr")), ()),
    "unspecified": (avif(nclx(2, 2)), (SRGB,)),
    "unknown primaries": (avif(nclx(200, 8)), (Cicp(1, 8),)),
    "unknown transfer": (avif(nclx(12, 200)), (Cicp(12, 13),)),
    "curve of cameras": (avif(nclx(9, 14)), (Cicp(9, 13),)),
    "high dynamic range": (avif(nclx(9, 16)), (Cicp(9, 16),)),
    "stream": (avif(streams={1: STREAM}), (Cicp(12, 8),)),
    "stream that is silent": (avif(streams={1: SILENT}), ()),
    "stream of unknown numbers": (avif(streams={1: unit(reduced(*described(2, 2)))}), (SRGB,)),
    "nclx over stream": (avif(P3, streams={1: OTHER}), (Cicp(12, 13),)),
    "profile, then stream": (avif(ICC, streams={1: STREAM}), (PROFILE, Cicp(12, 8))),
    "configuration": (avif(box(b"av1C", b"\x81\0\0\0", STREAM)), (Cicp(12, 8),)),
    "stream over configuration": (avif(box(b"av1C", b"\x81\0\0\0", OTHER), streams={1: STREAM}), (Cicp(12, 8),)),
    "primary item's stream, not the first": (
        avif(primary=pitm(2), streams={1: OTHER, 2: STREAM}, associations=ipma((2, (1,)))),
        (Cicp(12, 8),),
    ),
    "tiles' stream, where the primary item has none": (avif(primary=pitm(7), streams={1: STREAM}), (Cicp(12, 8),)),
    "primary item of a wide number": (avif(P3, primary=pitm(1, version=1)), (Cicp(12, 13),)),
    "no primary item": (avif(P3, primary=box(b"free")), ()),
    "another item's": (avif(P3, LINEAR, associations=ipma((1, (1, 3)), (2, (2,)))), (Cicp(1, 8),)),
    "item that is not there": (avif(P3, associations=ipma((2, (2,)))), ()),
    "essential": (avif(P3, associations=ipma((1, (0x80 | 2,)))), (Cicp(12, 13),)),
    "wide indices": (avif(P3, associations=ipma((1, (0x8002,)), wide=True)), (Cicp(12, 13),)),
    "wide indices above 255": (
        avif(*[box(b"free")] * 300, P3, associations=ipma((1, (302,)), wide=True)),
        (Cicp(12, 13),),
    ),
    "wide numbers of items": (avif(P3, associations=ipma((9, (1,)), (1, (2,)), version=1)), (Cicp(12, 13),)),
    "index of zero": (avif(P3, associations=ipma((1, (0,)))), ()),
    "index beyond the properties": (avif(P3, associations=ipma((1, (3, 127)))), ()),
    "associations in two boxes": (
        avif(P3, LINEAR, associations=ipma((1, (1,))) + ipma((1, (3,)), version=1)),
        (Cicp(1, 8),),
    ),
    "more associations claimed": (avif(P3, associations=ipma((1, (2,)), count=2**32 - 1)), (Cicp(12, 13),)),
    "fewer associations claimed": (avif(P3, associations=ipma((2, (1,)), (1, (2,)), count=1)), ()),
    "associations that are cut off": (
        avif(P3, associations=box(b"ipma", bytes(4), b"\0\0\0\1\0\1\xff\2")),
        (Cicp(12, 13),),
    ),
    "no properties": (avif_header(P3), ()),
    "property that holds boxes": (
        # What stands in it is no property: the third is the second nclx.
        avif(box(b"stbl", P3, P3), LINEAR, associations=ipma((1, (3,)))),
        (Cicp(1, 8),),
    ),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES)
def test_signals_of_the_primary_item(content: bytes, expected: tuple[Signal, ...]) -> None:
    assert read_colour(content, ImageFormat.AVIF) == expected


def test_items_of_a_track_are_not_those_of_the_file() -> None:
    first, rest = avif(P3), avif(LINEAR)
    brand = rest[: rest.index(b"meta") - 4]
    content = brand + box(b"moov", box(b"trak", first[len(brand) :])) + rest[len(brand) :]
    assert read_colour(content, ImageFormat.AVIF) == (Cicp(1, 8),)


def test_what_stands_before_damage_counts() -> None:
    assert read_colour(avif(P3) + bytes((0, 0, 0, 3)) + b"free", ImageFormat.AVIF) == (Cicp(12, 13),)


def entry(*properties: bytes) -> bytes:
    return box(b"stsd", bytes(8), box(b"av01", bytes(78), *properties))


def movie(*entries: bytes) -> bytes:
    return box(b"moov", *(box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", each)))) for each in entries))


def test_first_track_of_a_sequence_counts() -> None:
    content = movie(entry(P3), entry(LINEAR))
    file = avif(nclx(9, 16)) + content
    assert read_colour(file, ImageFormat.AVIF) == (Cicp(9, 16),)
    sequence = file.replace(b"ftypavif", b"ftypavis")
    assert read_colour(sequence, ImageFormat.AVIF) == (Cicp(12, 13),)
    assert read_colour(sequence.replace(b"moov", b"free"), ImageFormat.AVIF) == (Cicp(9, 16),)
    # A property of the name of a track's entry is none.
    hidden = avif(box(b"av01", bytes(78), P3)).replace(b"ftypavif", b"ftypavis") + movie(entry(LINEAR))
    assert read_colour(hidden, ImageFormat.AVIF) == (Cicp(1, 8),)
    silent = box(b"ftyp", b"avis\0\0\0\0avis") + movie()
    assert read_colour(silent, ImageFormat.AVIF) == ()


def test_files_of_encoders_are_read() -> None:
    avif_file = encoded(PICTURE, "AVIF", icc_profile=display_p3(), speed=10)
    assert read_colour(avif_file, ImageFormat.AVIF)[0] == PROFILE
    sequence = encoded(PICTURE, "AVIF", icc_profile=display_p3(), speed=10, save_all=True, append_images=[PICTURE])
    assert read_colour(sequence, ImageFormat.AVIF)[0] == PROFILE
    assert read_colour(encoded(PICTURE, "HEIF", icc_profile=display_p3()), ImageFormat.HEIC)[0] == PROFILE
    numbers = {"matrix_coefficients": 6, "color_primaries": 12, "transfer_characteristics": 8}
    assert read_colour(encoded(PICTURE, "HEIF", **numbers), ImageFormat.HEIC) == (Cicp(12, 8),)


def test_depth_is_in_the_configuration() -> None:
    deep = avif_header(extents(8, 8), box(b"av1C", b"\x81\0\x40\0"))
    assert has_high_depth(deep)
    assert has_high_depth(deep + bytes((0, 0, 0, 3)) + b"free")
    assert not has_high_depth(avif_header(extents(8, 8), box(b"av1C", b"\x81\xff\xbf\xff")))
    assert not has_high_depth(avif_header(extents(8, 8), box(b"av1C"), brands=HEIC))
