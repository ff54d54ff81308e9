"""JPEG: ICC profiles in segments of every arrangement, and the colours that an Adobe segment names."""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from PIL import Image

from harness.images import encoded, jpeg_segment
from image_service.domain.image import ImageFormat
from tests.browser.cases.case import Case
from tests.browser.pictures import colours, greys, to_image
from tests.golden.files import jpeg_segments, with_gain_map, ycck_jpeg
from tests.golden.pictures import to_cmyk
from tests.golden.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GREY_PROFILES,
    LINEAR_NAMED_SRGB,
    PRESS,
    SRGB_PROFILE,
    TABLE_OF_COLOURS,
)

_APP1, _APP2 = 0xE1, 0xE2
_MAX_SEGMENT: Final = 65_519
"""Bytes of a profile that fit in a segment (ICC.1 annex B.4)."""


def icc(profile: bytes, place: int = 1, count: int = 1) -> bytes:
    """Return a segment with one part of a profile."""
    return jpeg_segment(_APP2, b"ICC_PROFILE\0" + bytes((place, count)) + profile)


def parts(profile: bytes, count: int) -> list[bytes]:
    """Return the segments of a profile in so many parts."""
    size = -(-len(profile) // count)
    return [icc(profile[at * size : (at + 1) * size], at + 1, count) for at in range(count)]


def exif_of_adobe_rgb() -> bytes:
    """Return an EXIF segment that says "uncalibrated" and "R03": Adobe RGB by the rules of cameras (DCF 2.0)."""
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0xA001] = 0xFFFF
    tags.get_ifd(0xA005)[1] = "R03"
    return jpeg_segment(_APP1, tags.tobytes())


P3: Final = DISPLAY_P3.content
_FOUR: Final = parts(P3, 4)
_LARGE: Final = P3 + bytes(2 * _MAX_SEGMENT)
"""More than one segment holds; what follows a profile has no meaning."""

RGB_SEGMENTS: Final[dict[str, bytes]] = {
    "none": b"",
    "icc-p3": icc(P3),
    "icc-srgb": icc(SRGB_PROFILE.content),
    "icc-adobe-rgb": icc(ADOBE_RGB.content),
    "icc-linear-named-srgb": icc(LINEAR_NAMED_SRGB.content),
    "icc-table": icc(TABLE_OF_COLOURS.content[:65_000])
    if len(TABLE_OF_COLOURS.content) < _MAX_SEGMENT
    else b"".join(parts(TABLE_OF_COLOURS.content, 2)),
    "icc-in-four": b"".join(_FOUR),
    "icc-large-in-three": b"".join(parts(_LARGE, 3)),
    "icc-in-four-backwards": b"".join(_FOUR[::-1]),
    "icc-third-of-four-missing": b"".join(_FOUR[:2] + _FOUR[3:]),
    "icc-last-of-four-missing": b"".join(_FOUR[:3]),
    "icc-second-of-four-twice": b"".join(_FOUR[:2] + _FOUR[1:]),
    "icc-counts-differ": icc(P3[:200], 1, 2) + icc(P3[200:], 2, 3),
    "icc-numbered-from-zero": icc(P3, 0, 1),
    "icc-zero-of-zero": icc(P3, 0, 0),
    "icc-p3-then-adobe": icc(P3) + icc(ADOBE_RGB.content),
    "icc-empty": icc(b""),
    "icc-text": icc(b"no profile at all" * 20),
    "icc-cut-off": icc(P3[:300]),
    "icc-for-grey": icc(GREY_PROFILES[1].content),
    "icc-for-cmyk": icc(PRESS.content[:60_000]),
    "icc-lower-case-name": jpeg_segment(_APP2, b"icc_profile\0\1\1" + P3),
    "exif-uncalibrated": exif_of_adobe_rgb(),
}
"""Segments after SOI of a picture in colour."""
GREY_SEGMENTS: Final[dict[str, bytes]] = {
    "none": b"",
    "icc-gamma-1.8": icc(GREY_PROFILES[0].content),
    "icc-linear": icc(GREY_PROFILES[1].content),
    "icc-dot-gain": icc(GREY_PROFILES[2].content),
    "icc-for-rgb": icc(P3),
    "icc-for-rgb-linear": icc(LINEAR_NAMED_SRGB.content),
    "icc-for-cmyk": icc(PRESS.content[:60_000]),
}
"""The same of a grey picture."""


def rgb(segments: bytes, **options: object) -> bytes:
    """Return the picture in colour with segments at the start."""
    return after_start(encoded(to_image(colours()), "JPEG", **{"quality": 98, "subsampling": 0, **options}), segments)


def grey(segments: bytes) -> bytes:
    """Return the grey picture with segments at the start."""
    return after_start(encoded(to_image(greys()), "JPEG", quality=98), segments)


def after_start(content: bytes, segments: bytes) -> bytes:
    """Return the file with segments after SOI."""
    return content[:2] + segments + content[2:]


def before(marker: int, content: bytes, segments: bytes) -> bytes:
    """Return the file with segments before its first segment of a kind."""
    position = 2
    for code, body in jpeg_segments(content):
        if code == marker:
            return content[:position] + segments + content[position:]
        position += 4 + len(body)
    raise ValueError(f"no segment {marker:#x}")


def cmyk(profile: bytes = b"") -> bytes:
    """Return the picture in four inks."""
    light = colours()
    black = 1 - light.max(axis=2, keepdims=True)
    inks = np.dstack(((1 - light - black) / np.maximum(1 - black, 1e-6), black))
    return encoded(to_cmyk(inks), "JPEG", quality=98, **({"icc_profile": profile} if profile else {}))


def ycck() -> bytes:
    """Return the same as YCCK."""
    light = colours()
    black = 1 - light.max(axis=2, keepdims=True)
    return ycck_jpeg(np.dstack(((1 - light - black) / np.maximum(1 - black, 1e-6), black)))


def _with_rgb_components() -> bytes:
    return encoded(to_image(colours()), "JPEG", quality=98, keep_rgb=True)


def _with_gain_map() -> bytes:
    """Return an Ultra HDR photograph in Display P3, which is shown as it is without its map."""
    return with_gain_map(rgb(icc(P3)), grey(b""))


_SOS: Final = 0xDA


def cases() -> list[Case]:
    """Return all cases of colours in JPEG files."""

    def case(mode: str, signal: str, make: Callable[[], bytes]) -> Case:
        return Case(format=ImageFormat.JPEG, mode=mode, depth=8, signal=signal, make=make)

    return [
        *(case("rgb", signal, partial(rgb, segments)) for signal, segments in RGB_SEGMENTS.items()),
        *(case("grey", signal, partial(grey, segments)) for signal, segments in GREY_SEGMENTS.items()),
        case("rgb", "icc-p3-progressive", partial(rgb, icc(P3), progressive=True)),
        case("rgb", "icc-p3-after-sof", lambda: before(_SOS, rgb(b""), icc(P3))),
        case("rgb", "icc-in-four-around-sof", lambda: before(_SOS, rgb(b"".join(_FOUR[:2])), b"".join(_FOUR[2:]))),
        case("rgb", "icc-p3-after-scan", lambda: rgb(b"")[:-2] + icc(P3) + b"\xff\xd9"),
        case("rgb", "icc-p3-after-end", lambda: rgb(b"") + icc(P3)),
        case("rgb", "icc-p3-rgb-components", lambda: after_start(_with_rgb_components(), icc(P3))),
        case("rgb", "rgb-components", _with_rgb_components),
        case("rgb", "gain-map", _with_gain_map),
        case("cmyk", "none", cmyk),
        case("ycck", "none", ycck),
        case("cmyk", "icc-press", partial(cmyk, PRESS.content)),
        case("cmyk", "icc-for-rgb", partial(cmyk, P3)),
    ]
