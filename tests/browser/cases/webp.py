"""WebP: an ICCP chunk, in its place and elsewhere (RFC 9649)."""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from harness.images import encoded
from image_service.domain.image import ImageFormat
from tests.browser.cases.case import Case
from tests.browser.pictures import colours, greys, opacity, to_image
from tests.golden.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GREY_PROFILES,
    LINEAR_NAMED_SRGB,
    PRESS,
    SRGB_PROFILE,
    TABLE_OF_COLOURS,
)

_ICC: Final = 0x20
"""The flag of VP8X that announces a profile."""
MODES: Final[dict[str, dict[str, Any]]] = {"lossy": {"quality": 98}, "lossless": {"lossless": True}}
EVERYWHERE: Final = {
    "iccp-p3": DISPLAY_P3.content,
    "iccp-linear-named-srgb": LINEAR_NAMED_SRGB.content,
}
"""Profiles that are tried in every mode."""
ONCE: Final = {
    "iccp-srgb": SRGB_PROFILE.content,
    "iccp-adobe-rgb": ADOBE_RGB.content,
    "iccp-table": TABLE_OF_COLOURS.content,
    "iccp-for-grey": GREY_PROFILES[1].content,
    "iccp-for-cmyk": PRESS.content,
    "iccp-cut-off": DISPLAY_P3.content[:300],
    "iccp-text": b"no profile at all" * 20,
}


def write(profile: bytes = b"", *, alpha: bool = False, grey: bool = False, **options: Any) -> bytes:  # noqa: ANN401
    """Return the picture with a profile; with the encoder's own options."""
    pixels = np.repeat(greys()[..., None], 3, axis=2) if grey else colours()
    if alpha:
        pixels = np.dstack((pixels, opacity()))
    return encoded(to_image(pixels), "WEBP", method=0, **({"icc_profile": profile} if profile else {}), **options)


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and whole chunk, with its header and padding."""
    position = 12
    while position < len(content):
        (size,) = struct.unpack_from("<I", content, position + 4)
        end = position + 8 + size + size % 2
        yield content[position : position + 4], content[position:end]
        position = end


def join(parts: list[bytes]) -> bytes:
    """Return the file of these chunks."""
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _unannounced() -> bytes:
    """Return a file with a profile that its VP8X does not announce."""
    content = bytearray(write(DISPLAY_P3.content, quality=98))
    content[20] &= ~_ICC
    return bytes(content)


def _last() -> bytes:
    """Return a file whose profile stands after the pixels."""
    found = list(chunks(write(DISPLAY_P3.content, quality=98)))
    return join(
        [chunk for kind, chunk in found if kind != b"ICCP"] + [chunk for kind, chunk in found if kind == b"ICCP"]
    )


def _twice() -> bytes:
    """Return a file with two profiles."""
    found = list(chunks(write(DISPLAY_P3.content, quality=98)))
    second = b"ICCP" + struct.pack("<I", len(ADOBE_RGB.content)) + ADOBE_RGB.content
    return join([chunk + (second if kind == b"ICCP" else b"") for kind, chunk in found])


def cases() -> list[Case]:
    """Return all cases of colours in WebP files."""
    case = partial(Case, format=ImageFormat.WEBP, depth=8)
    found = []
    for name, options in MODES.items():
        for alpha in (False, True):
            mode = f"{'rgba' if alpha else 'rgb'}-{name}"
            found.append(case(mode=mode, signal="none", make=partial(write, alpha=alpha, **options)))
            found += [
                case(mode=mode, signal=signal, make=partial(write, profile, alpha=alpha, **options))
                for signal, profile in EVERYWHERE.items()
            ]
        found += [
            case(mode=f"rgb-{name}", signal=signal, make=partial(write, profile, **options))
            for signal, profile in ONCE.items()
        ]
    grey = {"none": b"", "iccp-p3": DISPLAY_P3.content, "iccp-for-grey": GREY_PROFILES[1].content}
    found += [
        case(mode="grey-lossy", signal=signal, make=partial(write, profile, grey=True, quality=98))
        for signal, profile in grey.items()
    ]
    odd = {"iccp-p3-unannounced": _unannounced, "iccp-p3-after-pixels": _last, "iccp-p3-then-adobe": _twice}
    return found + [case(mode="rgb-lossy", signal=signal, make=make) for signal, make in odd.items()]
