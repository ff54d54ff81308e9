"""Animations in real decoder processes: in the sandbox, and within the time of one image."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from harness.animations import Part, apng, gif, gif_frame, webp
from harness.images import noise
from image_service.domain.recipe import Animation, OutputFormat, Preset, Recipe
from tests.contract.rendering import Give, MakePool, children, render

MAKERS: tuple[Callable[..., bytes], ...] = (gif, apng, webp)
STICKER = Preset(
    name="sticker", width=120, height=120, formats=(OutputFormat.GIF, OutputFormat.WEBP), animation=Animation.KEEP
)


@pytest.mark.parametrize("make", MAKERS)
async def test_animation_is_made_in_the_sandbox_without_threads(
    make_pool: MakePool, give: Give, make: Callable[..., bytes]
) -> None:
    pool = make_pool(writable=(), require_sandbox=True)
    await pool.start()
    before = children()
    parts = [Part(image=noise(200, 150).convert("RGBA")) for _ in range(5)]
    rendering = await render(pool, give(make((200, 150), *parts)), Recipe(presets=(STICKER,), name="r"))
    for each in rendering.thumbnails:
        with Image.open(io.BytesIO(each.path.read_bytes())) as image:
            assert (image.n_frames, image.size) == (5, (120, 90))  # type: ignore[attr-defined]  # of animations
    assert {each.content_type for each in rendering.thumbnails} == {"image/gif", "image/webp"}
    assert children() == before


async def test_animations_that_take_all_time_leave_the_stills(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(cpu_seconds=2)
    frame = gif_frame(Part(image=noise(600, 600).convert("RGBA")))
    content = gif((600, 600))[:-1] + frame * 500 + b";"
    presets = [replace(STICKER, name=f"sticker{index}", width=300 + index, height=300) for index in range(6)]
    rendering = await render(pool, give(content), Recipe(presets=tuple(presets), name="r"))
    assert {each.output.partition(".")[0] for each in rendering.thumbnails} == {each.name for each in presets}
