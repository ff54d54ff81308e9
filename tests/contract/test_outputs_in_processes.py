"""Outputs of every format, and animations, in real decoder processes within their limits."""

import io

import psutil
import pytest
from PIL import Image

from harness.images import encoded, gradient, noise
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat, Rendering
from image_service.domain.limits import DECODE_MEMORY
from image_service.domain.recipe import Effort, OutputFormat, Preset, Recipe
from image_service.errors import DecoderOutOfMemory
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.isolation.pool import RenderPool
from tests.contract.rendering import GOOD, Give, MakePool, children, render

EXPLICIT = tuple(each for each in OutputFormat if each is not OutputFormat.AUTO)
SANDBOXED = {"writable": (), "require_sandbox": True}


def recipe(*formats: OutputFormat, side: int = 1200, effort: Effort = Effort.FAST, quality: int = 80) -> Recipe:
    return Recipe(
        presets=(Preset(name="a", width=side, height=side, formats=formats, effort=effort, quality=quality),), name="r"
    )


def process() -> psutil.Process:
    (child,) = children()
    return psutil.Process(child)


def libraries() -> str:
    return " ".join(each.path for each in process().memory_maps())


def formats_of(rendering: Rendering) -> set[str]:
    return {each.content_type.removeprefix("image/") for each in rendering.thumbnails}


async def started(make_pool: MakePool, **limits: object) -> RenderPool:
    pool = make_pool(**limits)
    await pool.start()
    return pool


@pytest.mark.parametrize("effort", Effort)
async def test_every_format_is_encoded_in_the_sandbox_without_threads(
    make_pool: MakePool, give: Give, effort: Effort
) -> None:
    pool = await started(make_pool, outputs=EXPLICIT, **SANDBOXED)
    before = process()
    translucent = noise(300, 200).convert("RGBA")
    translucent.putalpha(Image.linear_gradient("L").resize(translucent.size))
    for picture in (noise(300, 200), translucent, noise(300, 200).convert("L")):
        # Formats that are no smaller than the first are left out, so each comes alone.
        for wanted in EXPLICIT:
            rendering = await render(pool, give(encoded(picture, "PNG")), recipe(wanted, effort=effort))
            assert formats_of(rendering) == {wanted.value}
    assert process() == before
    assert before.num_threads() == 1


async def test_jpeg_xl_encoder_is_loaded_at_the_start_where_a_recipe_needs_it(make_pool: MakePool, give: Give) -> None:
    pool = await started(make_pool, outputs=(OutputFormat.AUTO, OutputFormat.AVIF))
    assert "libjxl" not in libraries()
    await pool.close()
    pool = await started(make_pool, outputs=(OutputFormat.AUTO, OutputFormat.JXL), **SANDBOXED)
    assert "libjxl" in libraries()
    # Encoding does not enable decoding.
    assert ImageFormat.JXL not in DEFAULT_FORMATS
    (made,) = (await render(pool, give(GOOD), recipe(OutputFormat.JXL))).thumbnails
    image = JpegXl(io.BytesIO(made.path.read_bytes()))
    image.load()
    assert image.size == (640, 480)


async def test_jpeg_xl_encoder_is_loaded_later_by_a_recipe_that_is_new(make_pool: MakePool, give: Give) -> None:
    pool = await started(make_pool, **SANDBOXED)
    assert formats_of(await render(pool, give(GOOD), recipe(OutputFormat.JXL))) == {"jxl"}


async def test_large_jpeg_xl_outputs_fit_the_default_memory(make_pool: MakePool, give: Give) -> None:
    pool = await started(make_pool, outputs=(OutputFormat.JXL,), memory_bytes=DECODE_MEMORY)
    source = encoded(gradient(4000, 3000), "JPEG")
    for effort in Effort:
        wanted = recipe(OutputFormat.JXL, side=4000, effort=effort)
        assert formats_of(await render(pool, give(source), wanted)) == {"jxl"}


async def test_jpeg_xl_output_that_takes_more_memory_than_allowed_is_refused(make_pool: MakePool, give: Give) -> None:
    pool = await started(make_pool, outputs=(OutputFormat.JXL,), memory_bytes=160 << 20)
    source = encoded(gradient(4000, 3000), "JPEG")
    with pytest.raises(DecoderOutOfMemory):
        await render(pool, give(source), recipe(OutputFormat.JXL, side=4000))
    assert (await render(pool, give(GOOD), recipe(OutputFormat.JXL, side=200))).thumbnails
