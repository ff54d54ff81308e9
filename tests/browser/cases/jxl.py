"""JPEG XL: its own description of colours, profiles, and orientation (ISO/IEC 18181-1)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from harness.jxl import jxl
from image_service.domain.image import ImageFormat
from image_service.imaging.decoders.libjxl_structures import ColourEncoding
from tests.browser.cases.case import Case
from tests.browser.pictures import colours, greys, opacity, to_image
from tests.golden.profiles import ADOBE_RGB, DISPLAY_P3, LINEAR_NAMED_SRGB
from tests.golden.reference import Pixels

_GREY, _RGB = 1, 0


def _space(primaries: int, transfer: int, kind: int = _RGB) -> ColourEncoding:
    return ColourEncoding(kind, 1, (0, 0), primaries, (0,) * 6, transfer, 0, 1)


SPACES: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "p3": {"colours": _space(11, 13)},
    "rec2020": {"colours": _space(9, 13)},
    "linear": {"colours": _space(1, 8)},
    "bt709": {"colours": _space(1, 1)},
    "icc-p3": {"profile": DISPLAY_P3.content},
    "icc-adobe-rgb": {"profile": ADOBE_RGB.content},
    "icc-linear-named-srgb": {"profile": LINEAR_NAMED_SRGB.content},
    "hdr-pq-rec2020": {"colours": _space(9, 16)},
    "hdr-hlg-rec2020": {"colours": _space(9, 18)},
}
"""Primaries and transfer by ITU-T H.273, but for P3, which has another number; or a profile."""
_PIXELS: Final[dict[str, Callable[[], Pixels]]] = {
    "grey": greys,
    "rgb": colours,
    "rgba": lambda: np.dstack((colours(), opacity())),
}
_MODES: Final = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}


def write(mode: str, depth: int, **options: Any) -> bytes:  # noqa: ANN401 (the encoder's own)
    """Return the picture as a file."""
    pixels = _PIXELS[mode]()
    if depth == 8:
        return jxl(to_image(pixels), **options)
    samples = np.round(pixels * 65535).astype(np.uint16)
    height, width = samples.shape[:2]
    return jxl(samples.tobytes(), size=(width, height), mode=_MODES[mode], bits=depth, **options)


def cases() -> list[Case]:
    """Return all cases of JPEG XL."""

    def case(mode: str, depth: int, signal: str, **options: Any) -> Case:  # noqa: ANN401 (the encoder's own)
        make = partial(write, mode, depth, **options)
        return Case(format=ImageFormat.JXL, mode=mode, depth=depth, signal=signal, make=make)

    found = [
        case(mode, depth, f"{signal}-lossless", lossless=True, **options)
        for mode in ("rgb", "rgba")
        for depth in (8, 16)
        for signal, options in SPACES.items()
    ]
    found += [case("rgb", 8, f"{signal}-lossy", **options) for signal, options in SPACES.items()]
    found += [
        case("grey", depth, f"{signal}-lossless", lossless=True, colours=_space(1, transfer, _GREY))
        for depth in (8, 16)
        for signal, transfer in (("none", 13), ("linear", 8))
    ]
    found += [case("rgb", 8, f"orientation-{value}", lossless=True, orientation=value) for value in range(1, 9)]
    return found
