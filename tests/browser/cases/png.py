"""PNG: every colour chunk and every precedence, in every kind of picture (PNG, third edition)."""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.images import PNG_SIGNATURE, png_chunk
from image_service.domain.image import ImageFormat
from tests.browser.cases.case import Case
from tests.browser.pictures import colours, greys, opacity, stripes
from tests.golden.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GREY_2_2,
    GREY_PROFILES,
    LINEAR_NAMED_SRGB,
    PRESS,
    SRGB_PROFILE,
    TABLE_OF_COLOURS,
    with_numbers,
)
from tests.golden.reference import Pixels

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
"""Colour types."""
P3: Final = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE: Final = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
REC2020: Final = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
"""White and primaries, as in cHRM."""


def gama(value: float) -> bytes:
    """Return gAMA: the exponent from light to stored values."""
    return png_chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(values: tuple[float, ...]) -> bytes:
    """Return cHRM."""
    return png_chunk(b"cHRM", struct.pack(">8i", *(round(value * 100_000) for value in values)))


def srgb(intent: int = 0) -> bytes:
    """Return sRGB with a rendering intent."""
    return png_chunk(b"sRGB", bytes((intent,)))


def iccp(profile: bytes, name: bytes = b"profile") -> bytes:
    """Return iCCP."""
    return png_chunk(b"iCCP", name + b"\0\0" + zlib.compress(profile))


def cicp(*values: int) -> bytes:
    """Return cICP: primaries, transfer, matrix and range (ITU-T H.273)."""
    return png_chunk(b"cICP", bytes(values))


def wrong_checksum(chunk: bytes) -> bytes:
    """Return the chunk with another checksum."""
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


CICP_P3: Final = cicp(12, 13, 0, 1)

EVERYWHERE: Final[dict[str, bytes]] = {
    "none": b"",
    "gama-1.0": gama(1.0),
    "gama-chrm-p3": gama(0.45455) + chrm(P3),
    "cicp-p3": CICP_P3,
    "cicp-linear": cicp(1, 8, 0, 1),
    "cicp-bt709": cicp(1, 1, 0, 1),
}
"""Signals that are tried in every mode and depth; so are profiles, which differ between grey and colours."""

ONCE: Final[dict[str, bytes]] = {
    "srgb": srgb(),
    "srgb-absolute": srgb(3),
    "srgb-unknown-intent": srgb(9),
    "srgb-wrong-length": png_chunk(b"sRGB", b"\0\0"),
    "gama-0.45455": gama(0.45455),
    "gama-0.5": gama(0.5),
    "gama-0.55556": gama(1 / 1.8),
    "gama-0.3": gama(0.3),
    "gama-0.1": gama(0.1),
    "gama-0.023": gama(0.023),
    "gama-0.00001": gama(0.00001),
    "gama-2.0": gama(2.0),
    "gama-10.0": gama(10.0),
    "gama-100.0": gama(100.0),
    "gama-21474.83647": png_chunk(b"gAMA", b"\x7f\xff\xff\xff"),
    "gama-42949.67295": png_chunk(b"gAMA", b"\xff\xff\xff\xff"),
    "gama-zero": gama(0),
    "gama-wrong-length": png_chunk(b"gAMA", b"\0\1\x86\xa0\0"),
    "gama-wrong-checksum": wrong_checksum(gama(1.0)),
    "gama-twice-1.0-first": gama(1.0) + gama(0.45455),
    "gama-twice-1.0-last": gama(0.45455) + gama(1.0),
    "gama-chrm-adobe": gama(0.45455) + chrm(ADOBE),
    "gama-chrm-rec2020": gama(0.45455) + chrm(REC2020),
    "chrm-gama-rec2020": chrm(REC2020) + gama(0.45455),
    "gama-1.0-chrm-p3": gama(1.0) + chrm(P3),
    "gama-chrm-srgb": gama(0.45455) + chrm((0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)),
    "gama-chrm-white-d50": gama(0.45455) + chrm((0.3457, 0.3585, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)),
    "chrm-p3-alone": chrm(P3),
    "gama-1.0-chrm-zero": gama(1.0) + chrm((0,) * 8),
    "gama-1.0-chrm-one-point": gama(1.0) + chrm((0.3127, 0.3290, *(0.3, 0.3) * 3)),
    "gama-1.0-chrm-negative": gama(1.0) + chrm((0.3127, 0.3290, 0.7347, 0.2653, 0, 1, 0.0001, -0.077)),
    "gama-1.0-chrm-white-y-zero": gama(1.0) + chrm((0.3127, 0, *P3[2:])),
    "gama-chrm-swapped": gama(0.45455) + chrm((*P3[:2], *P3[4:6], *P3[2:4], *P3[6:])),
    "gama-1.0-chrm-wrong-length": gama(1.0) + png_chunk(b"cHRM", bytes(31)),
    "gama-1.0-chrm-wrong-checksum": gama(1.0) + wrong_checksum(chrm(P3)),
    "cicp-srgb": cicp(1, 13, 0, 1),
    "cicp-rec2020-bt709": cicp(9, 1, 0, 1),
    "cicp-rec2020-10-bit": cicp(9, 14, 0, 1),
    "cicp-rec2020-12-bit": cicp(9, 15, 0, 1),
    "cicp-rec2020-srgb": cicp(9, 13, 0, 1),
    "cicp-p3-linear": cicp(12, 8, 0, 1),
    "cicp-dci-p3": cicp(11, 17, 0, 1),
    "cicp-gamma-2.2": cicp(1, 4, 0, 1),
    "cicp-gamma-2.8": cicp(1, 5, 0, 1),
    "cicp-bt470m": cicp(4, 4, 0, 1),
    "cicp-bt470bg": cicp(5, 5, 0, 1),
    "cicp-bt601": cicp(6, 6, 0, 1),
    "cicp-smpte240": cicp(7, 7, 0, 1),
    "cicp-film": cicp(8, 1, 0, 1),
    "cicp-xyz-linear": cicp(10, 8, 0, 1),
    "cicp-log-100": cicp(1, 9, 0, 1),
    "cicp-log-316": cicp(1, 10, 0, 1),
    "cicp-xvycc": cicp(1, 11, 0, 1),
    "cicp-bt1361": cicp(1, 12, 0, 1),
    "cicp-ebu-3213": cicp(22, 13, 0, 1),
    "cicp-unspecified": cicp(2, 2, 0, 1),
    "cicp-p3-unspecified-transfer": cicp(12, 2, 0, 1),
    "cicp-unspecified-primaries-linear": cicp(2, 8, 0, 1),
    "cicp-reserved-zero": cicp(0, 0, 0, 1),
    "cicp-reserved-three": cicp(3, 3, 0, 1),
    "cicp-unknown": cicp(200, 201, 0, 1),
    "cicp-p3-unknown-transfer": cicp(12, 201, 0, 1),
    "cicp-unknown-primaries-linear": cicp(200, 8, 0, 1),
    "cicp-p3-matrix-one": cicp(12, 13, 1, 1),
    "cicp-p3-narrow": cicp(12, 13, 0, 0),
    "cicp-srgb-narrow": cicp(1, 13, 0, 0),
    "cicp-p3-range-two": cicp(12, 13, 0, 2),
    "cicp-p3-too-long": cicp(12, 13, 0, 1, 0),
    "cicp-p3-too-short": cicp(12, 13, 0),
    "cicp-p3-wrong-checksum": wrong_checksum(CICP_P3),
    "cicp-p3-then-srgb": CICP_P3 + cicp(1, 13, 0, 1),
    "cicp-srgb-then-p3": cicp(1, 13, 0, 1) + CICP_P3,
    # One rule wins over the next: cICP > iCCP > sRGB > gAMA and cHRM.
    "srgb-over-gama-1.0": srgb() + gama(1.0),
    "srgb-over-gama-chrm-p3": gama(1.0) + chrm(P3) + srgb(),
    "cicp-srgb-over-gama-1.0": gama(1.0) + cicp(1, 13, 0, 1),
    "cicp-p3-over-srgb": srgb() + CICP_P3,
    "cicp-unspecified-over-gama-1.0": cicp(2, 2, 0, 1) + gama(1.0),
    "cicp-unknown-over-gama-1.0": cicp(200, 201, 0, 1) + gama(1.0),
    "cicp-matrix-over-gama-1.0": cicp(12, 13, 1, 1) + gama(1.0),
    "cicp-narrow-over-gama-1.0": cicp(12, 13, 0, 0) + gama(1.0),
    "cicp-too-long-over-gama-1.0": cicp(12, 13, 0, 1, 0) + gama(1.0),
    "cicp-log-over-gama-1.0": cicp(1, 9, 0, 1) + gama(1.0),
}
"""Signals that are tried in grey and in RGB."""

GREY_LINEAR: Final = GREY_PROFILES[1].content
GREY_1_8: Final = GREY_PROFILES[0].content
PROFILES: Final = {
    False: {
        "iccp-p3": iccp(DISPLAY_P3.content),
        "iccp-linear-named-srgb": iccp(LINEAR_NAMED_SRGB.content),
    },
    True: {"iccp-gamma-1.8": iccp(GREY_1_8), "iccp-linear": iccp(GREY_LINEAR)},
}
"""Profiles that are tried in every mode and depth, by whether the picture is grey."""
_CUT: Final = DISPLAY_P3.content[:300]
COLOUR_PROFILES: Final[dict[str, bytes]] = {
    "iccp-srgb": iccp(SRGB_PROFILE.content),
    "iccp-adobe-rgb": iccp(ADOBE_RGB.content),
    "iccp-p3-tagged-srgb": iccp(with_numbers(DISPLAY_P3.content, 1, 13)),
    "iccp-srgb-tagged-p3": iccp(with_numbers(SRGB_PROFILE.content, 12, 13)),
    "iccp-table": iccp(TABLE_OF_COLOURS.content),
    "iccp-for-grey": iccp(GREY_LINEAR),
    "iccp-for-cmyk": iccp(PRESS.content),
    "iccp-empty": iccp(b""),
    "iccp-text": iccp(b"no profile at all" * 20),
    "iccp-cut-off": iccp(_CUT),
    "iccp-not-deflated": png_chunk(b"iCCP", b"profile\0\0" + DISPLAY_P3.content),
    "iccp-deflate-cut-off": png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(DISPLAY_P3.content)[:-40]),
    "iccp-wrong-adler": png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(DISPLAY_P3.content)[:-1] + b"\0"),
    "iccp-unknown-method": png_chunk(b"iCCP", b"profile\0\1" + zlib.compress(DISPLAY_P3.content)),
    "iccp-without-name": iccp(DISPLAY_P3.content, b""),
    "iccp-name-of-80": iccp(DISPLAY_P3.content, b"n" * 80),
    "iccp-name-of-81": iccp(DISPLAY_P3.content, b"n" * 81),
    "iccp-trailing-bytes": iccp(DISPLAY_P3.content + bytes(1000)),
    "iccp-wrong-checksum": wrong_checksum(iccp(DISPLAY_P3.content)),
    "iccp-p3-then-adobe": iccp(DISPLAY_P3.content) + iccp(ADOBE_RGB.content),
    "iccp-p3-over-srgb": iccp(DISPLAY_P3.content) + srgb(),
    "srgb-then-iccp-p3": srgb() + iccp(DISPLAY_P3.content),
    "iccp-p3-over-gama-1.0": gama(1.0) + iccp(DISPLAY_P3.content),
    "iccp-srgb-over-gama-1.0": gama(1.0) + iccp(SRGB_PROFILE.content),
    "cicp-srgb-over-iccp-p3": iccp(DISPLAY_P3.content) + cicp(1, 13, 0, 1),
    "cicp-p3-over-iccp-linear": CICP_P3 + iccp(LINEAR_NAMED_SRGB.content),
    "cicp-unspecified-over-iccp-p3": cicp(2, 2, 0, 1) + iccp(DISPLAY_P3.content),
    "cicp-unknown-over-iccp-p3": cicp(200, 201, 0, 1) + iccp(DISPLAY_P3.content),
    "cicp-matrix-over-iccp-p3": cicp(1, 13, 1, 1) + iccp(DISPLAY_P3.content),
    "cicp-narrow-over-iccp-p3": cicp(1, 13, 0, 0) + iccp(DISPLAY_P3.content),
    "iccp-cut-off-over-gama-1.0": iccp(_CUT) + gama(1.0),
    "iccp-cut-off-over-srgb-and-gama-1.0": iccp(_CUT) + srgb() + gama(1.0),
    "iccp-cut-off-over-gama-1.0-chrm-p3": iccp(_CUT) + gama(1.0) + chrm(P3),
    "iccp-for-grey-over-gama-1.0": iccp(GREY_LINEAR) + gama(1.0),
    "iccp-not-deflated-over-gama-1.0": png_chunk(b"iCCP", b"profile\0\0" + DISPLAY_P3.content) + gama(1.0),
}
"""Profiles that are tried in RGB."""
FOR_GREY: Final[dict[str, bytes]] = {
    "iccp-gamma-2.2": iccp(GREY_2_2.content),
    "iccp-dot-gain": iccp(GREY_PROFILES[2].content),
    "iccp-for-rgb": iccp(DISPLAY_P3.content),
    "iccp-for-rgb-linear": iccp(LINEAR_NAMED_SRGB.content),
    "iccp-for-rgb-linear-over-gama-1.0": iccp(LINEAR_NAMED_SRGB.content) + gama(1.0),
    "iccp-for-cmyk": iccp(PRESS.content),
    "iccp-cut-off-over-gama-1.0": iccp(GREY_LINEAR[:150]) + gama(1.0),
}
"""Profiles that are tried in grey."""


def _levels(pixels: Pixels, depth: int) -> NDArray[np.uint8]:
    """Return rows of bytes."""
    kind = np.dtype(">u2" if depth == 16 else "u1")
    values = np.round(pixels * (2**depth - 1)).astype(kind)
    return np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)


def write(
    rows: NDArray[np.uint8], width: int, depth: int, colour: int, *, before: bytes = b"", after: bytes = b""
) -> bytes:
    """Return a PNG of rows of samples, with chunks before and after the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    filtered = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    pixels = png_chunk(b"IDAT", zlib.compress(filtered))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + before + pixels + after + png_chunk(b"IEND", b"")


def grey(chunks: bytes, depth: int, *, alpha: bool = False, key: bool = False, after: bytes = b"") -> bytes:
    """Return the grey picture, with alpha, or with the grey of the first patch transparent."""
    pixels = greys()
    levels = _levels(pixels, depth)
    if alpha:
        levels = _levels(np.stack((pixels, opacity()), axis=-1), depth)
    if key:
        chunks += png_chunk(b"tRNS", struct.pack(">H", round(pixels[0, 0] * (2**depth - 1))))
    return write(levels, pixels.shape[1], depth, _GREY_ALPHA if alpha else _GREY, before=chunks, after=after)


def rgb(chunks: bytes, depth: int, *, alpha: bool = False, key: bool = False, after: bytes = b"") -> bytes:
    """Return the picture in colour, with alpha, or with the colour of the first patch transparent."""
    pixels = colours()
    levels = _levels(pixels, depth)
    if alpha:
        levels = _levels(np.dstack((pixels, opacity())), depth)
    if key:
        chunks += png_chunk(b"tRNS", struct.pack(">3H", *(round(each * (2**depth - 1)) for each in pixels[0, 0])))
    return write(levels, pixels.shape[1], depth, _RGBA if alpha else _RGB, before=chunks, after=after)


def palette(chunks: bytes, depth: int = 8, *, alpha: bool = False, after: bytes = b"") -> bytes:
    """Return a picture of all colours of a palette, the first half of them half transparent if wanted."""
    table, indices = stripes(2**depth)
    bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(len(indices), -1)
    chunks += png_chunk(b"PLTE", _levels(table, 8).tobytes())
    if alpha:
        chunks += png_chunk(b"tRNS", bytes((128,)) * 2 ** (depth - 1))
    return write(np.packbits(bits, axis=1), indices.shape[1], depth, _PALETTE, before=chunks, after=after)


def few_greys(chunks: bytes, depth: int) -> bytes:
    """Return a picture of all greys of less than 8 bits."""
    _, indices = stripes(2**depth)
    bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(len(indices), -1)
    return write(np.packbits(bits, axis=1), indices.shape[1], depth, _GREY, before=chunks)


_MODES: Final[dict[str, tuple[bool, tuple[int, ...], Callable[[bytes, int], bytes]]]] = {
    "grey": (True, (8, 16), grey),
    "few-greys": (True, (4,), few_greys),
    "grey-alpha": (True, (8, 16), partial(grey, alpha=True)),
    "grey-key": (True, (8, 16), partial(grey, key=True)),
    "rgb": (False, (8, 16), rgb),
    "rgba": (False, (8, 16), partial(rgb, alpha=True)),
    "rgb-key": (False, (8, 16), partial(rgb, key=True)),
    "palette": (False, (4, 8), palette),
    "palette-alpha": (False, (8,), partial(palette, alpha=True)),
}
"""Whether it is grey, its depths, and how to write it, by mode."""


def _case(mode: str, depth: int, signal: str, chunks: bytes, after: bytes = b"") -> Case:
    _, _, make = _MODES[mode]
    made = partial(make, chunks, depth, **({"after": after} if after else {}))
    return Case(format=ImageFormat.PNG, mode=mode, depth=depth, signal=signal, make=made)


def cases() -> list[Case]:
    """Return all cases of colours in PNG files."""
    everywhere = [
        _case(mode, depth, signal, chunks)
        for mode, (is_grey, depths, _) in _MODES.items()
        for depth in depths
        for signal, chunks in (EVERYWHERE | PROFILES[is_grey]).items()
    ]
    once = [_case(mode, 8, signal, chunks) for mode in ("grey", "rgb") for signal, chunks in ONCE.items()]
    once += [_case("rgb", 8, signal, chunks) for signal, chunks in COLOUR_PROFILES.items()]
    once += [_case("grey", 8, signal, chunks) for signal, chunks in FOR_GREY.items()]
    late = {"cicp-p3": CICP_P3, "gama-1.0": gama(1.0), "iccp-p3": iccp(DISPLAY_P3.content), "chrm-p3": chrm(P3)}
    once += [_case("rgb", 8, f"{signal}-after-idat", b"", chunk) for signal, chunk in late.items()]
    table = png_chunk(b"PLTE", bytes(range(3)))
    once += [_case("rgb", 8, f"{signal}-after-plte", table + chunk) for signal, chunk in late.items()]
    return everywhere + once
