"""The conversion in floating point, against the numbers of BT.2100, BT.2408 and ST 2094-50."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.images import display_p3, linear_grey
from image_service.imaging.formats.colour import SRGB, Cicp, Gamma, Profile, Signal
from image_service.imaging.render.colour import floating
from image_service.imaging.render.colour.spaces import Curve, Unusable
from tests.golden.profiles import DISPLAY_P3, PRESS, SAMPLED_CURVE, TABLE_OF_COLOURS
from tests.golden.reference import linear_to_srgb

PQ2020, HLG2020 = Cicp(9, 16), Cicp(9, 18)
REFERENCE_WHITE = 203


def grey(signal: Signal, *shares: float, channels: int = 3) -> list[int]:
    """Return what greys become, given as shares of the largest sample."""
    samples = np.round(np.array(shares) * 65535).astype(np.uint16)[None, :, None].repeat(channels, axis=2)
    made = floating.to_srgb(samples, signal)
    assert made.shape == samples.shape
    assert (np.ptp(made.astype(int), axis=2) <= 1).all()
    return [int(value) for value in made[0, :, 0]]


def pq_sample(nits: float) -> float:
    """Return the PQ value of a brightness (BT.2100 table 4)."""
    power = (nits / 10_000) ** (2610 / 16384)
    return float(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


@pytest.mark.parametrize(("share", "nits"), [(0.0, 0), (0.58, 203), (0.75, 1000), (0.5081, 100), (1.0, 10_000)])
def test_pq_has_the_published_brightness(share: float, nits: float) -> None:
    # BT.2408 table 1: reference white is at 58 %; BT.2390: 1000 nits at 75 %.
    light = floating._pq(np.array([share]))[0] * REFERENCE_WHITE
    assert light == pytest.approx(nits, rel=0.02)
    assert pq_sample(nits) == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize(("share", "light"), [(0.0, 0), (0.5, 1 / 12), (0.75, 0.2650), (1.0, 1.0)])
def test_hlg_has_the_published_light(share: float, light: float) -> None:
    assert floating._hlg(np.array([share]))[0] == pytest.approx(light, abs=2e-4)
    # BT.2408 table 1: 75 % are 203 nits on a display of 1000 nits.
    assert 1000 * floating._hlg(np.array([0.75]))[0] ** 1.2 == pytest.approx(REFERENCE_WHITE, rel=0.01)


def test_reference_white_becomes_half_of_the_light() -> None:
    half = round(float(linear_to_srgb(np.array(0.5))) * 255)
    assert grey(PQ2020, pq_sample(203)) == grey(HLG2020, 0.75) == [half]
    assert half == 188
    assert grey(PQ2020, pq_sample(1000), pq_sample(4000), 1.0) == [255, 255, 255]
    assert grey(HLG2020, 1.0) == [255]


@pytest.mark.parametrize(("signal", "levels"), [(PQ2020, range(128, 193, 8)), (HLG2020, range(64, 225, 32))])
def test_tones_are_close_to_those_of_browsers(signal: Signal, levels: range) -> None:
    measured = {
        128: 132,
        136: 153,
        144: 175,
        152: 198,
        160: 213,
        168: 226,
        176: 237,
        184: 246,
        192: 255,
    }
    if signal is HLG2020:
        measured = {64: 43, 96: 71, 128: 99, 160: 135, 192: 189, 224: 228}
    found = grey(signal, *(level / 255 for level in levels))
    assert found == pytest.approx([measured[level] for level in levels], abs=3)


def test_tone_curve_is_straight_then_bends_and_never_falls() -> None:
    for peak in (0.5, 1.0, 1.001, 2.0, 1000 / REFERENCE_WHITE, 10_000 / REFERENCE_WHITE, 429_496 / REFERENCE_WHITE):
        light, made = floating._tone_curve(peak)
        assert (np.diff(light) >= 0).all()
        assert (np.diff(made) >= 0).all()
        assert (light[0], made[0], made[-1]) == (0, 0, 1)
        assert light[-1] == pytest.approx(max(peak, 1))
        slopes = np.diff(made)[1:] / np.maximum(np.diff(light)[1:], 1e-12)
        assert (np.diff(slopes) <= 1e-6).all()


def test_brightness_of_the_picture_sets_the_curve() -> None:
    dim, usual, bright = (grey(PQ2020._replace(peak=peak), pq_sample(150))[0] for peak in (203.0, 1000.0, 4000.0))
    assert dim > usual == bright
    # A picture that is not brighter than paper keeps its light.
    assert dim == round(float(linear_to_srgb(np.array(150 / 203))) * 255)
    assert grey(PQ2020._replace(peak=0.0001), pq_sample(203))[0] == 255
    # Highlights of brighter pictures stay apart.
    one, other = grey(PQ2020._replace(peak=4000.0), pq_sample(1500), pq_sample(3000))
    assert one + 5 < other < 255


def test_hue_is_kept_when_tones_are_compressed() -> None:
    share = pq_sample(800), pq_sample(400), pq_sample(200)
    samples = np.round(np.array(share) * 65535).astype(np.uint16)[None, None]
    decoding = floating._decoding(PQ2020, 65536, 3)
    light = floating._linear(samples, decoding)
    before = np.array((800, 400, 200)) / REFERENCE_WHITE @ np.array(decoding.to_srgb).T
    assert light[0, 0] / light[0, 0].max() == pytest.approx(before / before.max(), rel=5e-3)


def test_other_primaries_are_tone_mapped_too() -> None:
    assert grey(Cicp(12, 16), pq_sample(203)) == grey(Cicp(1, 16), pq_sample(203)) == [188]
    for primaries in (1, 12, 9):
        red = floating.to_srgb(np.array([[[40_000, 0, 0]]], np.uint16), Cicp(primaries, 16))[0, 0]
        assert red[0] > 150
        assert max(red[1:]) < 60
    # Light that BT.2020 cannot show is not less than none.
    assert floating.to_srgb(np.array([[[0, 40_000, 0]]], np.uint16), Cicp(10, 18)).max() > 100


def test_grey_has_one_channel() -> None:
    assert grey(PQ2020, pq_sample(203), channels=1) == grey(HLG2020, 0.75, channels=1) == [188]
    assert grey(Gamma(1.0, ()), 0.5, channels=1) == [188]
    assert grey(Profile(linear_grey()), 0.5, channels=1) == [188]
    # A grey picture with a profile for colours.
    assert grey(Profile(display_p3()), 0.5, channels=1) == grey(Profile(display_p3()), 0.5)


def test_srgb_stays_as_it_is() -> None:
    samples = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert (floating.to_srgb(samples, SRGB) == samples).all()


@pytest.mark.parametrize("profile", [DISPLAY_P3, SAMPLED_CURVE], ids=lambda profile: profile.name)
def test_profiles_of_three_curves_are_followed(profile: object) -> None:
    assert isinstance(profile, type(DISPLAY_P3))
    samples = np.random.default_rng(1).integers(0, 65536, (3, 50, 3)).astype(np.uint16)
    wanted = np.round(profile.to_srgb(samples / 65535) * 255)
    assert np.abs(floating.to_srgb(samples, Profile(profile.content)) - wanted).max() <= 1


UNUSABLE: list[Signal] = [
    Profile(b"none"),
    Profile(TABLE_OF_COLOURS.content),
    Profile(PRESS.content),
    Profile(linear_grey()),
    Cicp(2, 2),
    Cicp(2, 16),
    Gamma(1.0, (0.0,) * 8),
    Gamma(1.0, (2.0,) * 8),
]


@pytest.mark.parametrize("signal", UNUSABLE, ids=lambda signal: repr(signal)[:40])
def test_others_are_unusable(signal: Signal) -> None:
    with pytest.raises(Unusable):
        floating.to_srgb(np.zeros((1, 1, 3), np.uint16), signal)


def test_all_rows_are_converted() -> None:
    for height in (1, 63, 64, 65, 200):
        samples = np.full((height, 3, 3), 32_768, np.uint16)
        assert (floating.to_srgb(samples, Gamma(1.0, ())) == 188).all()


def test_curves_of_any_numbers_stay_within_bounds() -> None:
    values = np.linspace(0, 1, 256)

    for curve in (
        Curve(-1.0),
        Curve(0.0),
        Curve(30_000.0, 30_000.0),
        Curve(0.5, -1.0),
        Curve(-2.5, 0, 0, 0, 0, -9, -9),
    ):
        table = floating._table(curve, values)
        assert table.dtype == np.float32
        assert ((table >= 0) & (table <= 1)).all()


def test_images_become_samples_and_back() -> None:
    for mode in ("L", "RGB"):
        image = Image.effect_noise((7, 5), 90).convert(mode)
        samples: NDArray[np.uint8] = floating.samples_of(image)
        assert samples.shape == (5, 7, len(mode))
        assert floating.to_image(samples).tobytes() == image.tobytes()
    assert floating.to_image(np.zeros((2, 3, 4), np.uint8)).mode == "RGBA"
    assert floating.to_eight_bits(np.array([0, 255, 256, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
