import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.images import (
    display_p3,
    encoded,
    gradient,
    noise,
    oriented,
    png_chunk,
)
from image_service.domain.geometry import fit_inside
from image_service.domain.recipe import DEFAULT_RECIPE, Preset, Recipe
from tests.unit.imaging.render.rendered import Make, assert_alike, assert_close


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "BMP"])
def test_makes_every_preset(make: Make, name: str) -> None:
    made = make(encoded(gradient(2600, 1300), name), DEFAULT_RECIPE)
    assert [each.output for each in made.rendering.thumbnails] == ["100x100", "300x300", "1200x1200"]
    assert (made.rendering.width, made.rendering.height) == (2600, 1300)
    for each, size in zip(made.rendering.thumbnails, [(100, 50), (300, 150), (1200, 600)], strict=True):
        content = each.path.read_bytes()
        assert (each.width, each.height) == size
        assert each.content_type == "image/jpeg"
        assert each.size_bytes == len(content)
        # A GIF has 256 colours for all of them.
        assert_alike(made[each.output], gradient(*size), tolerance=40 if name == "GIF" else 12)


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
@pytest.mark.parametrize("name", ["JPEG", "PNG", "AVIF", "HEIF", "JXL", "TIFF"])
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


def test_ignores_orientation_in_webp(make: Make) -> None:
    image = gradient(120, 60)
    assert make(encoded(image, "WEBP", exif=oriented(image, 6))).small.size == (40, 20)


def test_ignores_orientation_after_the_pixels_of_a_png(make: Make) -> None:
    image = gradient(120, 60)
    chunk = png_chunk(b"eXIf", oriented(image, 6).removeprefix(b"Exif\0\0"))
    content = encoded(image, "PNG")
    assert make(content[:-12] + chunk + content[-12:]).small.size == (40, 20)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "TIFF"])
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


def test_every_output_decodes_strictly(make: Make) -> None:
    made = make(encoded(noise(500, 400), "JPEG"), DEFAULT_RECIPE)
    for each in made.rendering.thumbnails:
        Image.open(io.BytesIO(each.path.read_bytes())).load()
