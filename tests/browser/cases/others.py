"""GIF, BMP and TIFF: what little they say of colours."""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import Image

from harness.images import encoded
from image_service.domain.image import ImageFormat
from tests.browser.cases import orientation, png
from tests.browser.cases.case import Case
from tests.browser.pictures import colours, greys, opacity, stripes, to_image
from tests.golden.profiles import DISPLAY_P3, GREY_PROFILES, LINEAR_NAMED_SRGB
from tests.golden.reference import SRGB

_ORIENTATION: Final = 0x0112
_V5: Final = 124
"""Bytes of the header of version 5."""


def _gif() -> bytes:
    table, indices = stripes(256)
    image = Image.fromarray(indices, "P")
    image.putpalette(np.round(table * 255).astype(np.uint8).tobytes())
    return encoded(image, "GIF")


def _bmp(space: bytes, profile: bytes = b"", gamma: float = 0) -> bytes:
    """Return a BMP file with a header of version 5 that names a colour space, and perhaps sRGB's primaries."""
    pixels = np.round(colours() * 255).astype(np.uint8)[::-1, :, ::-1].tobytes()
    height, width = greys().shape
    header = (
        struct.pack("<IiiHHIIiiII", _V5, width, height, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + space
    )
    header += struct.pack("<9i", *(round(value * 2**30) for value in SRGB.T.flat))
    header += struct.pack("<3I", *(round(gamma * 2**16),) * 3)
    header += struct.pack("<IIII", 4, _V5 + len(pixels), len(profile), 0)
    start = 14 + _V5
    return b"BM" + struct.pack("<III", start + len(pixels) + len(profile), 0, start) + header + pixels + profile


def _tiff(mode: str, **options: Any) -> bytes:  # noqa: ANN401 (an encoder's own options)
    pixels = {"grey": greys(), "rgb": colours(), "rgba": np.dstack((colours(), opacity()))}[mode]
    return encoded(to_image(pixels), "TIFF", **options)


def _grey_16() -> bytes:
    return encoded(Image.fromarray(np.round(greys() * 65535).astype(np.uint16)), "TIFF")


def cases() -> list[Case]:
    """Return all cases of the other formats."""

    def tiff(mode: str, depth: int, signal: str, make: Callable[[], bytes], stand_in: Callable[[], bytes]) -> Case:
        return Case(format=ImageFormat.TIFF, mode=mode, depth=depth, signal=signal, make=make, stand_in=stand_in)

    def bmp(signal: str, make: Callable[[], bytes]) -> Case:
        return Case(format=ImageFormat.BMP, mode="rgb", depth=8, signal=signal, make=make)

    linear, p3, grey = LINEAR_NAMED_SRGB.content, DISPLAY_P3.content, GREY_PROFILES[0].content
    return [
        Case(format=ImageFormat.GIF, mode="palette", depth=8, signal="none", make=_gif),
        bmp("none", lambda: encoded(to_image(colours()), "BMP")),
        bmp("srgb", partial(_bmp, b"BGRs")),
        bmp("calibrated-linear", partial(_bmp, b"\0\0\0\0", gamma=1.0)),
        bmp("icc-linear-named-srgb", partial(_bmp, b"DEBM", linear)),
        bmp("icc-p3", partial(_bmp, b"DEBM", p3)),
        tiff("rgb", 8, "none", partial(_tiff, "rgb"), partial(png.rgb, b"", 8)),
        tiff("rgba", 8, "none", partial(_tiff, "rgba"), partial(png.rgb, b"", 8, alpha=True)),
        tiff("grey", 16, "none", _grey_16, partial(png.grey, b"", 16)),
        tiff("rgb", 8, "icc-p3", partial(_tiff, "rgb", icc_profile=p3), partial(png.rgb, png.iccp(p3), 8)),
        tiff(
            "rgb",
            8,
            "icc-linear-named-srgb",
            partial(_tiff, "rgb", icc_profile=linear),
            partial(png.rgb, png.iccp(linear), 8),
        ),
        tiff(
            "grey", 8, "icc-gamma-1.8", partial(_tiff, "grey", icc_profile=grey), partial(png.grey, png.iccp(grey), 8)
        ),
        *(
            tiff(
                "rgb",
                8,
                f"orientation-{value}",
                partial(_tiff, "rgb", tiffinfo={_ORIENTATION: value}),
                partial(png.rgb, orientation.png_exif(orientation.exif(value)), 8),
            )
            for value in orientation.ALL
        ),
    ]
