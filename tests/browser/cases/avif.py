"""AVIF: colr with a profile or with numbers, several, and none at all, for 8, 10 and 12 bits."""

from collections.abc import Callable
from functools import cache, partial
from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from harness.images import box, encoded
from image_service.domain.image import ImageFormat
from tests.browser.cases import iso
from tests.browser.cases.case import Case
from tests.browser.pictures import HEIGHT, WIDTH, colours, greys, holes, opacity, to_image
from tests.golden.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GREY_PROFILES,
    LINEAR_NAMED_SRGB,
    PRESS,
    SRGB_PROFILE,
    TABLE_OF_COLOURS,
)

_YUV444, _YUV420, _GREY = 1, 3, 4
_BT601: Final = 6
"""The matrix that pictures are coded with if nothing else is said."""
_LEVEL: Final = 98

EVERYWHERE: Final[dict[str, tuple[int, int, int]]] = {
    "nclx-srgb": (1, 13, 6),
    "nclx-p3": (12, 13, 6),
    "nclx-rec2020": (9, 14, 9),
    "nclx-linear": (1, 8, 6),
}
"""Primaries, transfer and matrix that are tried in every mode and depth, with pictures coded accordingly."""
ONCE: Final[dict[str, tuple[int, int, int]]] = {
    "nclx-bt709": (1, 1, 1),
    "nclx-bt601": (6, 6, 6),
    "nclx-bt470bg": (5, 5, 5),
    "nclx-smpte240": (7, 7, 7),
    "nclx-gamma-2.2": (1, 4, 6),
    "nclx-gamma-2.8": (1, 5, 6),
    "nclx-dci-p3": (11, 17, 6),
    "nclx-rec2020-12-bit": (9, 15, 9),
    "nclx-log": (1, 9, 6),
    "nclx-identity": (1, 13, 0),
    "nclx-identity-p3": (12, 13, 0),
    "nclx-ycgco": (1, 13, 8),
    "nclx-chroma-derived": (12, 13, 12),
    "nclx-unspecified": (2, 2, 2),
    "nclx-p3-unspecified-transfer": (12, 2, 6),
    "nclx-unspecified-primaries-linear": (2, 8, 6),
}


def pixels(mode: str, depth: int) -> NDArray[np.uint8 | np.uint16]:
    """Return the samples of the picture."""
    values = greys() if mode == "grey" else colours()
    if mode == "rgba":
        values = np.dstack((values, holes()))
    if mode == "rgba-soft":
        values = np.dstack((values, opacity()))
    return np.asarray(np.round(values * (2**depth - 1)), dtype=np.uint8 if depth == 8 else np.uint16)


@cache
def coded(mode: str, depth: int, numbers: tuple[int, int, int] = (1, 13, _BT601)) -> bytes:
    """Return an encoder's file of the picture."""
    primaries, transfer, matrix = numbers
    shape = {"grey": _GREY}.get(mode, _YUV444)
    return bytes(
        imagecodecs.avif_encode(
            pixels(mode, depth),
            level=_LEVEL,
            speed=9,
            bitspersample=depth,
            pixelformat=shape,
            primaries=primaries,
            transfer=transfer,
            matrix=matrix,
            numthreads=1,
        )
    )


def boxed(
    *properties: bytes, mode: str = "rgb", depth: int = 8, numbers: tuple[int, int, int] = (1, 13, _BT601)
) -> bytes:
    """Return the picture in a container that has these properties and no others."""
    return iso.write(iso.picture_in(coded(mode, depth, numbers)), WIDTH, HEIGHT, properties)


def _narrow() -> bytes:
    return encoded(to_image(colours()), "AVIF", quality=_LEVEL, subsampling="4:4:4", range="limited", speed=9)


P3: Final = iso.colr(DISPLAY_P3.content)
PROPERTIES: Final[dict[str, tuple[bytes, ...]]] = {
    "colr-absent": (),
    "icc-p3": (P3,),
    "icc-restricted-p3": (iso.colr(DISPLAY_P3.content, b"rICC"),),
    "icc-adobe-rgb": (iso.colr(ADOBE_RGB.content),),
    "icc-srgb": (iso.colr(SRGB_PROFILE.content),),
    "icc-linear-named-srgb": (iso.colr(LINEAR_NAMED_SRGB.content),),
    "icc-table": (iso.colr(TABLE_OF_COLOURS.content),),
    "icc-for-grey": (iso.colr(GREY_PROFILES[1].content),),
    "icc-for-cmyk": (iso.colr(PRESS.content),),
    "icc-cut-off": (iso.colr(DISPLAY_P3.content[:300]),),
    "icc-empty": (iso.colr(b""),),
    "nclx-srgb-then-icc-p3": (iso.nclx(1, 13, 6), P3),
    "icc-p3-then-nclx-srgb": (P3, iso.nclx(1, 13, 6)),
    "icc-cut-off-and-nclx-linear": (iso.colr(DISPLAY_P3.content[:300]), iso.nclx(1, 8, 6)),
    "icc-for-grey-and-nclx-linear": (iso.colr(GREY_PROFILES[1].content), iso.nclx(1, 8, 6)),
    "nclx-p3-then-srgb": (iso.nclx(12, 13, 6), iso.nclx(1, 13, 6)),
    "icc-p3-then-adobe": (P3, iso.colr(ADOBE_RGB.content)),
    "nclx-unknown": (iso.nclx(200, 201, 6),),
    "nclx-p3-unknown-transfer": (iso.nclx(12, 201, 6),),
    "nclx-unknown-primaries-linear": (iso.nclx(200, 8, 6),),
    "nclx-unknown-matrix": (iso.nclx(1, 13, 200),),
    "nclx-narrow-of-full": (iso.nclx(1, 13, 6, full=False),),
    "nclx-cut-off": (box(b"colr", b"nclx\0\x0c"),),
    "colr-of-unknown-kind": (box(b"colr", b"none\0\x0c\0\x0d\0\6\x80"),),
}
"""Properties of a picture in colour whose bit stream says sRGB."""
STREAM: Final[dict[str, tuple[int, int, int]]] = {
    "stream-p3": (12, 13, 6),
    "stream-linear": (1, 8, 6),
    "stream-unspecified": (2, 2, 2),
    "stream-identity": (1, 13, 0),
}
"""What the bit stream says where there is no colr."""


def cases() -> list[Case]:
    """Return all cases of colours in AVIF files."""

    def case(mode: str, depth: int, signal: str, make: Callable[[], bytes]) -> Case:
        return Case(format=ImageFormat.AVIF, mode=mode, depth=depth, signal=signal, make=make)

    found = [
        case(mode, depth, signal, partial(coded, mode, depth, numbers))
        for mode in ("grey", "rgb", "rgba")
        for depth in (8, 10, 12)
        for signal, numbers in EVERYWHERE.items()
    ]
    found += [case("rgb", 8, signal, partial(coded, "rgb", 8, numbers)) for signal, numbers in ONCE.items()]
    found += [case("rgb", 8, signal, partial(boxed, *listed)) for signal, listed in PROPERTIES.items()]
    found += [case("rgb", 10, signal, partial(boxed, *PROPERTIES[signal], depth=10)) for signal in ("icc-p3",)]
    found += [case("rgb", 8, signal, partial(boxed, numbers=numbers)) for signal, numbers in STREAM.items()]
    grey = {"icc-gamma-1.8": GREY_PROFILES[0].content, "icc-linear": GREY_PROFILES[1].content, "icc-for-rgb": None}
    found += [
        case("grey", 8, signal, partial(boxed, iso.colr(profile or LINEAR_NAMED_SRGB.content), mode="grey"))
        for signal, profile in grey.items()
    ]
    colour_over_stream = partial(boxed, iso.nclx(1, 13, 6), numbers=(12, 13, 6))
    profile_over_stream = partial(boxed, P3, numbers=(1, 8, 6))
    return [
        *found,
        case("rgb", 8, "nclx-srgb-over-stream-p3", colour_over_stream),
        case("rgb", 8, "icc-p3-over-stream-linear", profile_over_stream),
        case("rgb", 8, "narrow", _narrow),
        case("rgba-soft", 8, "nclx-srgb", partial(coded, "rgba-soft", 8)),
    ]
