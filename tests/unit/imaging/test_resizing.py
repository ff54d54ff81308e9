import sys
from collections.abc import Callable

import pytest
from PIL import Image, ImageChops, ImageStat

from harness.images import gradient, noise
from image_service.imaging import resizing
from image_service.imaging.resizing import Box, resize

Resample = Callable[[Image.Image, tuple[int, int], Box], Image.Image]
WITH_PILLOW = resizing._with_pillow
BEST = resizing._choose()


@pytest.fixture(params=[BEST, WITH_PILLOW], ids=["default", "Pillow"])
def resample(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Resample:
    monkeypatch.setattr(resizing, "_resample", request.param)
    chosen: Resample = request.param
    return chosen


def translucent(width: int, height: int) -> Image.Image:
    image = noise(width, height).convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize((width, height)))
    return image


def differences(one: Image.Image, other: Image.Image) -> list[float]:
    assert (one.mode, one.size) == (other.mode, other.size)
    return [float(channel.getextrema()[1]) for channel in ImageChops.difference(one, other).split()]  # type: ignore[arg-type]


@pytest.mark.usefixtures("resample")
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_resizing_preserves_gradients(mode: str) -> None:
    small = resize(gradient(600, 400).convert(mode), (150, 100))
    assert max(differences(small, gradient(150, 100).convert(mode))) <= 4


@pytest.mark.parametrize("image", [noise(333, 217), noise(333, 217).convert("L"), noise(333, 217).convert("CMYK")])
def test_resamplers_agree(image: Image.Image) -> None:
    for size in ((100, 65), (332, 1), (7, 217)):
        whole = resizing.whole(image)
        # They round intermediate values in another order, which is visible at the edges of noise only.
        one, other = BEST(image, size, whole), WITH_PILLOW(image, size, whole)
        assert max(differences(one, other)) <= 8
        assert max(ImageStat.Stat(ImageChops.difference(one, other)).mean) <= 0.5


def test_resamplers_agree_on_transparency() -> None:
    image = translucent(333, 217)
    made = [each(image, (100, 65), resizing.whole(image)).convert("RGBa") for each in (BEST, WITH_PILLOW)]
    assert max(differences(*made)) <= 8


@pytest.mark.usefixtures("resample")
def test_resizing_weights_pixels_by_alpha() -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    for size in ((9, 9), (3, 3), (2, 64)):
        _, green, _, _ = resize(image, size).convert("RGBa").split()
        assert green.getextrema()[1] <= 2  # type: ignore[operator]


@pytest.mark.usefixtures("resample")
def test_resizes_only_the_box() -> None:
    image = Image.new("RGB", (100, 100), "red")
    image.paste((0, 0, 255), (80, 0, 100, 100))
    image.paste((0, 0, 255), (0, 50, 100, 100))
    # Filters may reach a little beyond its edge.
    inside = resize(image, (40, 25), (0, 0, 80, 50)).crop((0, 0, 36, 21))
    assert inside.getextrema() == ((255, 255), (0, 0), (0, 0))
    assert resize(image, (2, 2), (0, 0, 80, 50)).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=20)


@pytest.mark.usefixtures("resample")
def test_returns_image_of_wanted_size_unchanged() -> None:
    image = gradient(30, 20)
    assert resize(image, (30, 20)) is image
    assert resize(image, (30, 20), (0, 0, 29, 20)) is not image


@pytest.mark.usefixtures("resample")
def test_resizes_very_long_pictures() -> None:
    # A filter over all of it would take half a gigabyte of weights.
    long = Image.linear_gradient("L").resize((1, 10_000_000), Image.Resampling.NEAREST)
    for image in (long, long.transpose(Image.Transpose.ROTATE_90)):
        small = resize(image, (min(image.width, 1200), min(image.height, 1200)))
        expected = Image.linear_gradient("L").resize((1, 1200))
        upright = small if small.width == 1 else small.transpose(Image.Transpose.ROTATE_270)
        assert max(differences(upright, expected)) <= 3


def test_resizes_with_pillow_without_cykooz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    assert resizing._choose() is WITH_PILLOW
