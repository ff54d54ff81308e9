"""HEIC, which the browser does not show: a PNG of the same picture that says the same stands in for it."""

import io
from functools import partial
from typing import Any, Final

import numpy as np
import pillow_heif

from image_service.domain.image import ImageFormat
from tests.browser.cases import png
from tests.browser.cases.case import Case
from tests.browser.pictures import HEIGHT, WIDTH, colours
from tests.golden.profiles import DISPLAY_P3, LINEAR_NAMED_SRGB, SRGB_PROFILE

_SRGB: Final = (1, 13, 6)
NUMBERS: Final[dict[str, tuple[int, int, int]]] = {
    "nclx-srgb": _SRGB,
    "nclx-p3": (12, 13, 6),
    "nclx-linear": (1, 8, 6),
    "nclx-rec2020-srgb": (9, 13, 9),
}
PROFILES: Final = {
    "icc-srgb": SRGB_PROFILE.content,
    "icc-p3": DISPLAY_P3.content,
    "icc-linear-named-srgb": LINEAR_NAMED_SRGB.content,
}


def write(depth: int, numbers: tuple[int, int, int] = _SRGB, **options: Any) -> bytes:  # noqa: ANN401 (the encoder's)
    """Return the picture with colour primaries, transfer and matrix (ITU-T H.273)."""
    primaries, transfer, matrix = numbers
    samples = np.round(colours() * (255 if depth == 8 else 65535)).astype(np.uint8 if depth == 8 else "<u2")
    data = io.BytesIO()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = depth == 12
    pillow_heif.encode(
        "RGB" if depth == 8 else "RGB;16",
        (WIDTH, HEIGHT),
        samples.tobytes(),
        data,
        quality=96,
        chroma=444,
        color_primaries=primaries,
        transfer_characteristics=transfer,
        matrix_coefficients=matrix,
        full_range_flag=1,
        **options,
    )
    return data.getvalue()


def cases() -> list[Case]:
    """Return all cases of colours in HEIC files."""
    case = partial(Case, format=ImageFormat.HEIC, mode="rgb")
    found = [
        case(
            depth=depth,
            signal=signal,
            make=partial(write, depth, numbers),
            stand_in=partial(png.rgb, png.cicp(*numbers[:2], 0, 1), 16),
        )
        for depth in (8, 10)
        for signal, numbers in NUMBERS.items()
    ]
    return found + [
        case(
            depth=depth,
            signal=signal,
            make=partial(write, depth, icc_profile=profile, save_nclx_profile=False),
            stand_in=partial(png.rgb, png.iccp(profile), 16),
        )
        for depth in (8, 10)
        for signal, profile in PROFILES.items()
    ]
