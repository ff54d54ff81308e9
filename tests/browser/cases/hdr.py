"""PQ and HLG in PNG, AVIF and HEIC."""

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from harness.images import png_chunk
from image_service.domain.image import ImageFormat
from tests.browser.cases import avif, heic, jpeg, png
from tests.browser.cases.case import Case
from tests.golden.profiles import DISPLAY_P3, with_numbers

SIGNALS: Final = {"pq-rec2020": (9, 16), "hlg-rec2020": (9, 18), "pq-p3": (12, 16)}
"""Primaries and transfer (ITU-T H.273)."""


def _light_level(nits: int) -> bytes:
    return png_chunk(b"cLLI", struct.pack(">II", nits * 10_000, nits * 1_000))


def cases() -> list[Case]:
    """Return all cases of high dynamic range."""

    def case(
        image_format: ImageFormat, depth: int, signal: str, make: Callable[[], bytes], stand_in: bytes | None = None
    ) -> Case:
        shown = None if stand_in is None else partial(png.rgb, stand_in, 16)
        return Case(
            format=image_format,
            mode="rgb",
            depth=depth,
            signal=f"hdr-{signal}",
            make=make,
            stand_in=shown,
        )

    found = []
    for signal, (primaries, transfer) in SIGNALS.items():
        numbers = png.cicp(primaries, transfer, 0, 1)
        found += [case(ImageFormat.PNG, depth, signal, partial(png.rgb, numbers, depth)) for depth in (8, 16)]
        found += [
            case(ImageFormat.AVIF, depth, signal, partial(avif.coded, "rgb", depth, (primaries, transfer, 9)))
            for depth in (8, 10, 12)
        ]
        found += [
            case(ImageFormat.HEIC, depth, signal, partial(heic.write, depth, (primaries, transfer, 9)), numbers)
            for depth in (8, 10)
        ]
    profile = with_numbers(DISPLAY_P3.content, 12, 16)
    found += [
        case(ImageFormat.PNG, 16, "icc-tagged-pq-p3", partial(png.rgb, png.iccp(profile), 16)),
        case(ImageFormat.JPEG, 8, "icc-tagged-pq-p3", partial(jpeg.rgb, jpeg.icc(profile))),
    ]
    for nits in (400, 4000):
        chunks = png.cicp(9, 16, 0, 1) + _light_level(nits)
        found.append(case(ImageFormat.PNG, 16, f"pq-rec2020-{nits}-nits", partial(png.rgb, chunks, 16)))
    return found
