"""ICC profiles: those that we write are read by LittleCMS, and those of others by us."""

import io
import struct
import tracemalloc
from time import process_time

import pytest
from PIL import Image, ImageCms

from harness.images import display_p3, linear_grey
from image_service.imaging.limits import MAX_PROFILE_BYTES
from image_service.imaging.render.colour import icc
from image_service.imaging.render.colour.spaces import BT709, CURVES, PRIMARIES, SRGB_CURVE, Curve, to_d50

MANY = 2**32 - 1
UNIT = 65536


def profile(
    tags: dict[bytes, bytes], *, space: bytes = b"RGB ", pcs: bytes = b"XYZ ", count: int | None = None
) -> bytes:
    """A profile of these tags, with a header of which only the kinds of colours are filled in."""
    start = 128 + 4 + 12 * len(tags)
    table, bodies = b"", b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body
    head = bytes(16) + space + pcs + bytes(104)
    return head + struct.pack(">I", len(tags) if count is None else count) + table + bodies


def curv(*values: int, count: int | None = None) -> bytes:
    return b"curv" + struct.pack(f">4xI{len(values)}H", len(values) if count is None else count, *values)


def para(kind: int, *values: float) -> bytes:
    return b"para" + struct.pack(f">4xH2x{len(values)}i", kind, *(round(value * UNIT) for value in values))


def rgb(*curves: bytes) -> dict[bytes, bytes]:
    columns = ((0.5, 0.25, 0.0), (0.25, 0.5, 0.125), (0.125, 0.25, 0.5))
    tags = {
        name + b"XYZ": b"XYZ " + struct.pack(">4x3i", *(round(value * UNIT) for value in column))
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return tags | {name + b"TRC": curves[at % len(curves)] for at, name in enumerate((b"r", b"g", b"b"))}


def only_curve(body: bytes) -> Curve | icc.Table | None:
    found = icc.read(profile({b"kTRC": body}, space=b"GRAY"))
    return found and found.curves[0]


CURVES_READ = {
    "no values": (curv(), Curve(1.0)),
    "one value": (curv(0x0233), Curve(0x233 / 256)),
    "a table": (curv(0, 5, 65535), (0, 5, 65535)),
    "kind 0": (para(0, 2), Curve(2.0)),
    "kind 1": (para(1, 2, 0.5, 0.25), Curve(2, 0.5, 0.25, 0, -0.5)),
    "kind 1 without a slope": (para(1, 2, 0, 0.25), Curve(2, 0, 0.25)),
    "kind 2": (para(2, 2, 0.5, 0.25, 0.125), Curve(2, 0.5, 0.25, 0, -0.5, 0.125, 0.125)),
    "kind 2 without a slope": (para(2, 2, 0, 0.25, 0.125), Curve(2, 0, 0.25, 0, 0, 0.125, 0.125)),
    "kind 3": (para(3, 2, 0.5, 0.25, 0.125, 0.0625), Curve(2, 0.5, 0.25, 0.125, 0.0625)),
    "kind 4": (para(4, 2, 0.5, 0.25, 0.125, 0.0625, 0.5, 0.75), Curve(2, 0.5, 0.25, 0.125, 0.0625, 0.5, 0.75)),
    "negative numbers": (para(3, -1, -0.5, -0.25, 0, -2), Curve(-1, -0.5, -0.25, 0, -2)),
    "more behind": (para(0, 2) + bytes(9), Curve(2.0)),
    "kind 5": (para(5, *[1] * 8), None),
    "another kind": (b"text" + bytes(20), None),
    "empty": (b"", None),
    "parameters that are cut off": (para(3, 2, 0.5, 0.25, 0.125), None),
    "parametric kind that is cut off": (b"para\0\0\0\0\0", None),
    "a table that is cut off": (curv(0, 5, count=3), None),
    "a count that is cut off": (b"curv\0\0\0\0\0\0", None),
    "a gamma that is cut off": (curv(count=1), None),
    "a huge table that is cut off": (curv(0, 5, count=MANY), None),
}


@pytest.mark.parametrize(("body", "expected"), CURVES_READ.values(), ids=CURVES_READ)
def test_curves_are_read(body: bytes, expected: Curve | icc.Table | None) -> None:
    assert only_curve(body) == expected


def test_only_so_much_of_a_table_is_read() -> None:
    found = only_curve(curv(*[7] * 70_000, count=MANY))
    assert found == (7,) * 65_536


def test_matrix_and_curves_are_read() -> None:
    found = icc.read(profile(rgb(curv(), curv(512), para(0, 3))))
    assert found == icc.MatrixProfile(
        ((0.5, 0.25, 0.125), (0.25, 0.5, 0.25), (0.0, 0.125, 0.5)), (Curve(1.0), Curve(2.0), Curve(3.0))
    )
    grey = icc.read(linear_grey())
    assert grey == icc.MatrixProfile(None, (Curve(1.0),))


def without(name: bytes) -> dict[bytes, bytes]:
    return {key: value for key, value in rgb(curv()).items() if key != name}


UNREADABLE = {
    "empty": b"",
    "without tags": profile({}),
    "a header alone": display_p3()[:128],
    "cut off in its table": display_p3()[:150],
    "without a curve": profile(without(b"gTRC")),
    "without a primary": profile(without(b"bXYZ")),
    "a primary that is cut off": profile({**rgb(curv()), b"rXYZ": b"XYZ " + bytes(12)}),
    "with a table of colours": profile({**rgb(curv()), b"A2B0": b"mft2"}),
    "with another table": profile({**rgb(curv()), b"D2B1": b""}),
    "for CMYK": profile(rgb(curv()), space=b"CMYK"),
    "for Lab": profile(rgb(curv()), pcs=b"Lab "),
    "grey without a curve": profile(rgb(curv()), space=b"GRAY"),
    "with the tags beyond those that are read": profile(
        {**{bytes((at,)) * 4: b"" for at in range(128)}, **rgb(curv())}
    ),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_others_are_not_read(content: bytes) -> None:
    assert icc.read(content) is None


def test_first_tag_of_a_name_counts() -> None:
    content = profile({b"kTRC": curv(512), b"xxxx": curv(256)}, space=b"GRAY").replace(b"xxxx", b"kTRC")
    found = icc.read(content)
    assert found
    assert found.curves == (Curve(2.0),)


def test_number_of_tags_is_not_believed() -> None:
    assert icc.read(profile(rgb(curv()), count=MANY)) == icc.read(profile(rgb(curv())))


def test_tags_that_are_all_the_whole_profile_take_no_copies() -> None:
    table = b"".join(struct.pack(">III", 0x61616161 + at, 0, MANY) for at in range(128))
    content = (bytes(16) + b"RGB XYZ " + bytes(104) + struct.pack(">I", MANY) + table).ljust(MAX_PROFILE_BYTES, b"\0")
    tracemalloc.start()
    began = process_time()
    try:
        assert icc.read(content) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert process_time() - began < 1


def test_curves_that_all_are_the_same_huge_table() -> None:
    tags = {key: value if key.endswith(b"XYZ") else b"" for key, value in rgb(curv()).items()}
    names = len(tags)
    content = bytearray(profile(tags) + curv(*[0] * 65_536, count=MANY) + bytes(2 << 20))
    start = content.index(b"curv")
    for at in range(128 + 4, 128 + 4 + 12 * names, 12):
        if content[at + 1 : at + 4] == b"TRC":
            struct.pack_into(">II", content, at + 4, start, MANY)
    began = process_time()
    found = icc.read(bytes(content))
    assert found
    assert [len(curve) for curve in found.curves] == [65_536] * 3
    assert process_time() - began < 1


def transform(content: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(content)), ImageCms.createProfile("sRGB"), mode, "RGB"
    )


@pytest.mark.parametrize("primaries", PRIMARIES)
@pytest.mark.parametrize("transfer", CURVES)
def test_what_we_write_is_what_we_read(primaries: int, transfer: int) -> None:
    curve, matrix = CURVES[transfer], to_d50(PRIMARIES[primaries])
    found = icc.read(icc.write(curve, matrix))
    assert found
    assert found.to_d50
    for row, wanted in zip(found.to_d50, matrix, strict=True):
        assert row == pytest.approx(wanted, abs=1 / UNIT)
    assert len(set(found.curves)) == 1
    assert found.curves[0] == pytest.approx(curve, abs=1 / UNIT)


def test_littlecms_reads_what_we_write() -> None:
    samples = Image.frombytes(
        "RGB", (256, 1), bytes(value for level in range(256) for value in (level, 255 - level, 7))
    )
    same = transform(icc.write(SRGB_CURVE, to_d50(BT709)), "RGB").apply(samples)
    assert all(abs(a - b) <= 1 for a, b in zip(same.tobytes(), samples.tobytes(), strict=True))
    grey = transform(icc.write(Curve(1.0), None), "L").apply(Image.new("L", (1, 1), 55))
    # 55/255 of light: 0.5029 in sRGB.
    assert grey.getpixel((0, 0)) == (128, 128, 128)
    red = transform(icc.write(SRGB_CURVE, to_d50(PRIMARIES[12])), "RGB").apply(Image.new("RGB", (1, 1), (200, 100, 50)))
    found = red.getpixel((0, 0))
    assert isinstance(found, tuple)
    assert found == pytest.approx((214, 95, 33), abs=2)


@pytest.mark.parametrize("value", [32_767.0, -32_767.0, float("inf"), float("nan")])
def test_numbers_that_do_not_fit_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no profile"):
        icc.write(Curve(value), None)
    with pytest.raises(ValueError, match="no profile"):
        icc.write(Curve(1.0), ((value, 0, 0), (0, 1, 0), (0, 0, 1)))
