"""Decoders that are optional dependencies, in real decoder processes: loaded only where enabled, within every limit."""

import psutil
import pytest
from PIL import Image

from harness.images import encoded, gradient, noise
from harness.jxl import jxl
from image_service.domain.image import ImageFormat
from image_service.errors import CorruptImage, DecoderOutOfMemory, ImageTooLarge
from tests.contract.rendering import GOOD, Give, MakePool, children, render

LIBRARIES = {ImageFormat.JXL: "libjxl", ImageFormat.HEIC: "libheif"}
PICTURES = {ImageFormat.JXL: encoded(gradient(64, 48), "JXL"), ImageFormat.HEIC: encoded(gradient(64, 48), "HEIF")}


def process() -> psutil.Process:
    (child,) = children()
    return psutil.Process(child)


def loaded() -> str:
    return " ".join(each.path for each in process().memory_maps())


@pytest.mark.parametrize("image_format", LIBRARIES)
async def test_is_loaded_only_where_its_format_is_enabled(
    make_pool: MakePool, give: Give, image_format: ImageFormat
) -> None:
    others = tuple(each for each in ImageFormat if each is not image_format)
    pool = make_pool(formats=others)
    assert (await render(pool, give(GOOD))).thumbnails
    assert LIBRARIES[image_format] not in loaded()
    await pool.close()
    pool = make_pool(formats=(*others, image_format))
    assert (await render(pool, give(PICTURES[image_format]))).thumbnails
    assert LIBRARIES[image_format] in loaded()


async def test_jpeg_xl_is_decoded_in_the_sandbox_without_threads(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(formats=(ImageFormat.JXL,), writable=(), require_sandbox=True)
    await pool.start()
    before = process()
    for content in (jxl(noise(700, 500)), jxl(noise(700, 500).convert("RGBA"), lossless=True)):
        rendering = await render(pool, give(content))
        assert (rendering.width, rendering.height) == (700, 500)
    assert process() == before
    assert before.num_threads() == 1


async def test_damaged_jpeg_xl_ends_no_process(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(formats=(ImageFormat.JXL,))
    await pool.start()
    before = process()
    whole = jxl(noise(300, 300))
    for length in (12, 100, len(whole) // 2, len(whole) - 9):
        with pytest.raises(CorruptImage):
            await render(pool, give(whole[:length]))
    assert process() == before


async def test_jpeg_xl_of_too_many_pixels_is_refused(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(formats=(ImageFormat.JXL,), max_pixels=2_000_000)
    with pytest.raises(ImageTooLarge):
        await render(pool, give(jxl(Image.new("RGB", (1500, 1500)))))


async def test_jpeg_xl_that_takes_more_memory_than_allowed_is_refused(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(formats=(ImageFormat.JXL,), memory_bytes=140 << 20)
    picture = Image.new("RGBA", (2500, 2500), (1, 2, 3, 4))
    with pytest.raises(DecoderOutOfMemory):
        await render(pool, give(jxl(picture, lossless=True)))
    # The same behind a canvas of 64 x 64, which is all that the header tells.
    with pytest.raises(CorruptImage):
        await render(pool, give(jxl(picture, size=(64, 64), lossless=True)))
    assert (await render(pool, give(jxl(gradient(64, 48))))).thumbnails
