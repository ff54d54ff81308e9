"""Images whose decoding would exceed the memory limit are refused, and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.images import encoded, gradient, png, png_chunk
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import DecoderCrashed, DecoderOutOfMemory, ImageTooLarge, Outage
from image_service.imaging.formats.content import FileContent
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from image_service.imaging.memory_estimate import least_memory

SIDE = 3000
AREA = SIDE * SIDE
PROCESS = 48 << 20
ROWS = 8 * SIDE


def plain(colour: int, *chunks: bytes, depth: int = 8) -> bytes:
    """Return a black PNG."""
    row = SIDE * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8
    return png(SIDE, SIDE, bytes(row * SIDE), *chunks, depth=depth, colour=colour)


def animated(name: str) -> bytes:
    first = gradient(SIDE, SIDE)
    return encoded(first, name, save_all=True, append_images=[first.rotate(90)], quality=10)


def translucent() -> Image.Image:
    image = gradient(SIDE, SIDE)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


PALETTE = png_chunk(b"PLTE", bytes(6))
COSTS: dict[str, tuple[Callable[[], bytes], float]] = {
    # The file, and the estimate in bytes: per pixel, and for the rows of each copy of the picture.
    "jpeg": (lambda: encoded(gradient(SIDE, SIDE), "JPEG"), 0),
    "jpeg, progressive": (lambda: encoded(gradient(SIDE, SIDE), "JPEG", progressive=True, subsampling=2), 3 * AREA),
    "jpeg, progressive, all colour": (
        lambda: encoded(gradient(SIDE, SIDE), "JPEG", progressive=True, subsampling=0),
        6 * AREA,
    ),
    "png, grey": (lambda: plain(0), AREA + ROWS),
    "png, grey, 16 bits": (lambda: plain(0, depth=16), 7 * AREA + 3 * ROWS),
    "png, grey and transparent": (lambda: plain(0, png_chunk(b"tRNS", bytes(2))), 9 * AREA + 3 * ROWS),
    "png, colour": (lambda: plain(2), 4 * AREA + ROWS),
    "png, colour and transparent": (lambda: plain(2, png_chunk(b"tRNS", bytes(6))), 12 * AREA + 3 * ROWS),
    "png, palette": (lambda: plain(3, PALETTE), 5 * AREA + 2 * ROWS),
    "png, palette and transparent": (lambda: plain(3, PALETTE, png_chunk(b"tRNS", b"\0")), 9 * AREA + 3 * ROWS),
    "png, grey with alpha": (lambda: plain(4), 8 * AREA + 2 * ROWS),
    "png, colour with alpha": (lambda: plain(6), 8 * AREA + 2 * ROWS),
    "gif": (lambda: encoded(gradient(SIDE, SIDE).convert("P"), "GIF"), 5 * AREA + 2 * ROWS),
    "webp": (lambda: encoded(gradient(SIDE, SIDE), "WEBP", method=0), 0),
    "webp, lossless": (lambda: encoded(gradient(SIDE, SIDE), "WEBP", lossless=True, method=0), 4 * AREA + ROWS),
    "webp, with alpha": (lambda: encoded(translucent(), "WEBP", method=0), 8 * AREA + 2 * ROWS),
    "webp, animated": (lambda: animated("WEBP"), 16 * AREA + 4 * ROWS),
    "avif": (lambda: encoded(gradient(SIDE, SIDE), "AVIF", speed=10), 8 * AREA + 3 * ROWS),
    "avif, grey": (
        lambda: encoded(gradient(SIDE, SIDE).convert("L"), "AVIF", speed=10, subsampling="4:0:0"),
        3 * AREA + 3 * ROWS,
    ),
    "avif, with alpha": (lambda: encoded(translucent(), "AVIF", speed=10), 13 * AREA + 4 * ROWS),
    "tiff": (lambda: encoded(gradient(SIDE, SIDE), "TIFF"), AREA + ROWS),
}


@pytest.fixture(params=COSTS)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    make, cost = COSTS[request.param]
    source = tmp_path / "source"
    source.write_bytes(make())
    return source, PROCESS + int(cost)


async def test_estimate_is_below_actual_need(case: tuple[Path, int], tmp_path: Path) -> None:
    source, cost = case
    header = HeaderInspector(allowed=ImageFormat).inspect(source)
    with FileContent(source) as content:
        assert least_memory(header.format, header.width, header.height, content) == cost
    with pytest.raises(ImageTooLarge, match=r"takes \d+ MB of memory"):
        HeaderInspector(max_memory=cost - 1, allowed=ImageFormat).inspect(source)
    pool = RenderPool(1, RenderLimits(memory_bytes=cost, formats=(header.format,)))
    try:
        with pytest.raises((DecoderOutOfMemory, DecoderCrashed, Outage)):
            await pool.render(source, DEFAULT_RECIPE, tmp_path)
    finally:
        await pool.close()
