"""What reads bytes from outside takes time in proportion to their number, whatever they are."""

import importlib
import pkgutil
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import process_time
from typing import Any

import pytest

import image_service
from harness.animations import Part, apng, gif, riff_chunk, webp
from harness.forms import BOUNDARY, part
from harness.images import encoded, gradient, jpeg_segment, noise, png_chunk
from image_service.api.form_parser import FormError, FormParser
from image_service.api.parameters import parse_parameters
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import InvalidImage
from image_service.imaging.formats import find_metadata, read_animation, read_frames, strip
from image_service.imaging.formats.completeness import check_length
from image_service.imaging.formats.jpeg_scans import check_scans, end_of_image, ends_in_scan, lacks_detail

_GROWTH = 8
_TOLERANCE = 4
"""By how much a measurement may be off on a machine with other work: quadratic time grows by ``_GROWTH`` once more."""
_NOISE_SECONDS = 0.05


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Assert that work on ``_GROWTH`` times the size takes about that much longer, in processor time."""

    def cost(amount: int) -> float:
        began = process_time()
        work(amount)
        return process_time() - began

    cost(1)
    small, large = cost(size), cost(size * _GROWTH)
    assert large <= _GROWTH * _TOLERANCE * small + _NOISE_SECONDS, f"{small:.4f} s for {size}, then {large:.4f} s"


UNITS = ("a", "0", ":", ".", " ", ",", "-", "=", "?", "<Code>", "\xff", "\xff\xd0", "!\xfe\1a", "bytes=0", "[::")


def expressions() -> Iterator[Any]:
    """Yield every regular expression that is compiled in the package."""
    for module in pkgutil.walk_packages(image_service.__path__, "image_service."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                yield pytest.param(value, id=f"{module.name}.{name}")


@pytest.mark.parametrize("expression", tuple(expressions()))
def test_expressions_take_linear_time(expression: re.Pattern[Any]) -> None:
    for unit in UNITS:
        for end in ("\0", "\n"):

            def match(size: int, unit: str = unit, end: str = end) -> None:
                text: Any = unit * (size // len(unit)) + end
                if isinstance(expression.pattern, bytes):
                    text = text.encode("latin-1")
                expression.search(text)
                expression.fullmatch(text)

            assert_linear(match, 4000)


JPEG = encoded(gradient(64, 64), "JPEG")
SCAN = JPEG.index(b"\xff\xda")
JPEG_FILLINGS = {
    "fill bytes before a zero": (b"\xff", b"\0"),
    "fill bytes before a restart": (b"\xff", b"\xd0"),
    "stuffed zeros": (b"\xff\0", b""),
    "restarts": (b"\xff\xd0", b""),
    "zeros": (b"\0", b""),
    "comments": (jpeg_segment(0xFE, b""), b""),
    "restart intervals": (jpeg_segment(0xDD, b"\0\0"), b""),
    "EXIF": (jpeg_segment(0xE1, b"Exif\0\0"), b""),
    "profiles": (jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1"), b""),
    "scans": (jpeg_segment(0xDA, bytes(10)), b""),
}


@pytest.mark.parametrize("at", [SCAN, len(JPEG) - 2], ids=["before the scan", "in the scan"])
@pytest.mark.parametrize(("unit", "end"), JPEG_FILLINGS.values(), ids=JPEG_FILLINGS)
def test_reading_jpeg_takes_linear_time(unit: bytes, end: bytes, at: int) -> None:
    def read(size: int) -> None:
        content = JPEG[:at] + unit * (size // len(unit)) + end + JPEG[at:]
        ends_in_scan(content)
        end_of_image(content)
        lacks_detail(content)
        _read_all(content, ImageFormat.JPEG)

    assert_linear(read, 40_000)


PNG = encoded(gradient(64, 64), "PNG")
PIXELS = PNG.index(b"IDAT") - 4
PROFILE = png_chunk(b"iCCP", b"a\0\0" + encoded(noise(30, 30), "PNG").partition(b"IDAT")[2][:2000])
PNG_CHUNKS = {kind: png_chunk(kind, b"") for kind in (b"IDAT", b"IEND", b"tEXt", b"eXIf", b"tRNS", b"fdAT", b"PLTE")}


@pytest.mark.parametrize("at", [PIXELS, len(PNG) - 12], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize("chunk", [*PNG_CHUNKS.values(), PROFILE], ids=[*map(str, PNG_CHUNKS), "iCCP"])
def test_reading_png_takes_linear_time(chunk: bytes, at: int) -> None:
    assert_linear(lambda size: _read_all(PNG[:at] + chunk * (size // len(chunk)) + PNG[at:], ImageFormat.PNG), 40_000)


GIF = encoded(gradient(64, 64), "GIF")
GIF_BLOCKS = 13 + 3 * 256


@pytest.mark.parametrize("unit", [b"!\xfe\0", b"!\xf9\4\0\0\0\0\0", b"\0", b"!\xff\x0bICCRGBG1012\1a\0"])
def test_reading_gif_takes_linear_time(unit: bytes) -> None:
    assert_linear(
        lambda size: _read_all(GIF[:GIF_BLOCKS] + unit * (size // len(unit)) + GIF[GIF_BLOCKS:], ImageFormat.GIF),
        40_000,
    )


def test_reading_gif_sub_blocks_takes_linear_time() -> None:
    assert_linear(
        lambda size: _read_all(
            GIF[:GIF_BLOCKS] + b"!\xfe" + b"\1a" * (size // 2) + b"\0" + GIF[GIF_BLOCKS:], ImageFormat.GIF
        ),
        40_000,
    )


ANIMATED = {
    ImageFormat.GIF: gif((2, 2), *[Part(image=gradient(2, 2).convert("RGBA"))] * 2),
    ImageFormat.PNG: apng((2, 2), *[Part(image=gradient(2, 2).convert("RGBA"))] * 2),
    ImageFormat.WEBP: webp((2, 2), *[Part(image=gradient(2, 2).convert("RGBA"))] * 2),
}
PARTS_OF_ANIMATIONS = {
    ImageFormat.GIF: (b"!\xfe\0", b"\0", b"!\xf9\4\0\0\0\0\0", b",\0\0\0\0\1\0\1\0\0\2\0", b"\1a"),
    ImageFormat.PNG: tuple(PNG_CHUNKS.values()),
    ImageFormat.WEBP: (riff_chunk(b"ANMF", bytes(16)), riff_chunk(b"ALPH", b""), riff_chunk(b"ANIM", b"")),
}


@pytest.mark.parametrize(
    ("image_format", "unit"), [(kind, unit) for kind, units in PARTS_OF_ANIMATIONS.items() for unit in units]
)
def test_reading_animations_takes_linear_time(image_format: ImageFormat, unit: bytes) -> None:
    whole = ANIMATED[image_format]

    def read(size: int) -> None:
        content = whole[:60] + unit * (size // len(unit)) + whole[60:] + unit * (size // len(unit))
        with suppress(InvalidImage):
            read_animation(content, image_format, 1000)
            deque(read_frames(content, image_format), maxlen=0)  # none is kept: that would measure the memory

    assert_linear(read, 40_000)


def _read_all(content: bytes, image_format: ImageFormat) -> None:
    find_metadata(content, image_format)
    try:
        if image_format is ImageFormat.JPEG:
            check_scans(content, 64 * 64)
        check_length(strip(content, image_format), ImageHeader(format=image_format, width=9999, height=9999))
    except InvalidImage:
        pass  # it is refused, which has to be as quick


FILE = part(b"").removesuffix(b"\r\n")


@pytest.mark.parametrize("unit", [b"\r\n--" + BOUNDARY[:-1], b"\r\n", b"\r", b"-", b"a:b\r\n"])
@pytest.mark.parametrize("start", [FILE, b"--" + BOUNDARY + b"\r\n", b""], ids=["file", "headers", "preamble"])
def test_reading_a_form_takes_linear_time(start: bytes, unit: bytes) -> None:
    def read(size: int) -> None:
        parser = FormParser(BOUNDARY.decode())
        body = start + unit * (size // len(unit))
        try:
            for at in range(0, len(body), 1000):
                for _ in parser.feed(body[at : at + 1000]):
                    pass
        except FormError:
            pass

    assert_linear(read, 100_000)


@pytest.mark.parametrize("unit", [";", '; a="', "; a=\\", '; a="\\', ';a=b"', '"', "\\", "=", ";=", "; a=b", "=;", " "])
def test_reading_a_content_type_takes_linear_time(unit: str) -> None:
    assert_linear(lambda size: parse_parameters("multipart/form-data" + unit * (size // len(unit))), 4000)
