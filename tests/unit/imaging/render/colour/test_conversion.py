"""Which signal decides, and what is no conversion at all."""

from unittest.mock import Mock

import pytest
from PIL import Image, ImageCms

from harness.images import display_p3, linear_grey
from image_service.imaging.formats.colour import SRGB, Cicp, Gamma, Profile, Signal
from image_service.imaging.render.colour import conversion
from image_service.imaging.render.colour.conversion import is_srgb, to_srgb
from image_service.imaging.render.colour.icc import write
from image_service.imaging.render.colour.spaces import BT709, SRGB_CURVE, Curve, to_d50
from tests.golden.profiles import DISPLAY_P3, PRESS

COLOUR = (200, 100, 50)
RGB = Image.new("RGB", (2, 2), COLOUR)
P3, LINEAR = Cicp(12, 13), Gamma(1.0, ())
AS_P3, AS_LINEAR = (215, 95, 32), (229, 168, 123)
LINEAR_NAMED_SRGB = write(Curve(1.0), to_d50(BT709)) + b"sRGB IEC61966-2.1"
SRGB_PROFILES = {
    "LittleCMS": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "ours": write(SRGB_CURVE, to_d50(BT709)),
}
MALFORMED: list[Signal] = [
    Profile(b"none"),
    Profile(b"text" * 50),
    Profile(bytes(16) + b"RGB XYZ " + bytes(200)),
    Profile(display_p3()[:200]),
    Profile(linear_grey()[:185]),
    Profile(PRESS.content[:100]),
    Cicp(2, 2),
    Gamma(1.0, (0.0,) * 8),
    Gamma(1.0, (0.3127, 0.329, *[1.0] * 6)),
]


def colour_of(image: Image.Image, *signals: Signal) -> tuple[int, ...]:
    found = to_srgb(image, signals).getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize(
    ("signal", "expected"),
    [(P3, AS_P3), (LINEAR, AS_LINEAR), (Profile(DISPLAY_P3.content), AS_P3), (SRGB, COLOUR)],
)
def test_colours_are_converted(signal: Signal, expected: tuple[int, ...]) -> None:
    assert colour_of(RGB, signal) == pytest.approx(expected, abs=2)
    assert is_srgb(signal) == (expected == COLOUR)


def test_first_signal_that_is_not_malformed_counts() -> None:
    for malformed in MALFORMED:
        assert is_srgb(malformed)
        assert colour_of(RGB, malformed) == COLOUR
        assert colour_of(RGB, malformed, LINEAR, P3) == pytest.approx(AS_LINEAR, abs=1)
    assert to_srgb(RGB, (SRGB, LINEAR)) is RGB
    assert to_srgb(RGB, ()) is RGB


@pytest.mark.parametrize("profile", [linear_grey(), PRESS.content], ids=["grey", "CMYK"])
def test_profile_for_another_kind_of_picture_is_the_last_word(profile: bytes) -> None:
    assert colour_of(RGB, Profile(profile), LINEAR) == COLOUR


def test_profile_for_cmyk_counts_as_srgb_and_one_for_grey_does_not() -> None:
    assert is_srgb(Profile(PRESS.content))
    assert not is_srgb(Profile(linear_grey()))


def test_profile_is_judged_by_what_it_does() -> None:
    for profile in SRGB_PROFILES.values():
        assert is_srgb(Profile(profile))
    assert not is_srgb(Profile(LINEAR_NAMED_SRGB))
    assert colour_of(RGB, Profile(LINEAR_NAMED_SRGB)) == pytest.approx(AS_LINEAR, abs=1)


def test_grey_is_converted_in_its_own_way() -> None:
    grey, level = Image.new("L", (2, 2), 55), (128, 128, 128)
    for signal in (LINEAR, Profile(linear_grey()), Profile(LINEAR_NAMED_SRGB), Cicp(12, 8)):
        assert colour_of(grey, signal) == pytest.approx(level, abs=1)
    # A grey picture with two channels is decoded as RGBA.
    with_alpha = Image.new("RGBA", (2, 2), (55, 55, 55, 9))
    assert colour_of(with_alpha, Profile(linear_grey())) == pytest.approx((*level, 9), abs=1)
    coloured = Image.new("RGBA", (2, 2), (55, 55, 56, 9))
    assert to_srgb(coloured, (Profile(linear_grey()),)) is coloured
    # Primaries that do not exist make the signal malformed, also for grey.
    assert to_srgb(grey, (Gamma(1.0, (0.0,) * 8),)) is grey
    assert to_srgb(grey, (Profile(PRESS.content),)) is grey
    assert to_srgb(grey, (Profile(SRGB_PROFILES["ours"]),)) is grey


def test_alpha_is_kept() -> None:
    image = Image.new("RGBA", (2, 2), (*COLOUR, 77))
    assert colour_of(image, P3) == pytest.approx((*AS_P3, 77), abs=2)
    assert colour_of(image, Cicp(9, 16))[3] == 77


def test_cmyk_becomes_rgb_whatever_its_profile() -> None:
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert colour_of(image) == colour_of(image, Profile(display_p3())) == (255, 0, 0)
    printed = colour_of(image, Profile(PRESS.content))
    assert len(printed) == 3
    assert printed != (255, 0, 0)


def test_high_dynamic_range_is_tone_mapped() -> None:
    white = 148
    for mode in ("L", "RGB"):
        image = Image.new(mode, (2, 2), white if mode == "L" else (white,) * 3)
        made = to_srgb(image, (Cicp(9, 16),))
        assert made.mode == mode
        assert made.convert("L").getpixel((0, 0)) == pytest.approx(187, abs=2)
    assert not is_srgb(Cicp(9, 16))
    assert not is_srgb(Cicp(1, 18))
    # Of unknown primaries nothing is known.
    assert is_srgb(Cicp(2, 16))


def test_conversion_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    conversion._transform.cache_clear()
    build = Mock(wraps=ImageCms.buildTransform)
    monkeypatch.setattr(ImageCms, "buildTransform", build)
    for _ in range(3):
        to_srgb(RGB, (P3,))
    assert build.call_count == 1
    conversion._transform.cache_clear()


@pytest.mark.parametrize("transfer", [8, 13, 16, 18])
def test_code_points_say_nothing_about_inks(transfer: int) -> None:
    inks = Image.new("CMYK", (2, 2), (0, 128, 255, 10))
    assert to_srgb(inks, (Cicp(9, transfer), LINEAR)).tobytes() == inks.convert("RGB").tobytes()
