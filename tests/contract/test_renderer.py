"""The contract of every renderer, written against the port."""

import asyncio
from pathlib import Path

import pytest
from PIL import Image

from harness.images import encoded, oriented
from image_service.domain.image import MetadataKind
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import (
    CorruptImage,
    ImageTooLarge,
    ObjectMissing,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.ports import Renderer
from tests.contract.rendering import GOOD, Give, MakePool, render


@pytest.fixture(params=["pool"])
def renderer(make_pool: MakePool) -> Renderer:
    return make_pool(2)


class TestEveryRenderer:
    async def test_makes_every_preset(self, renderer: Renderer, give: Give) -> None:
        source, out = give(GOOD)
        rendering = await renderer.render(source, DEFAULT_RECIPE, out)
        assert (rendering.width, rendering.height) == (640, 480)
        assert [(each.width, each.height) for each in rendering.thumbnails] == [(100, 75), (300, 225), (640, 480)]
        for each in rendering.thumbnails:
            assert each.path.parent == out
            assert each.path.stat().st_size == each.size_bytes
            with Image.open(each.path) as image:
                assert image.size == (each.width, each.height)

    @pytest.mark.parametrize(
        ("content", "verdict"),
        [
            (GOOD[: len(GOOD) // 2], CorruptImage),
            (b"text", UnsupportedFormat),
            (encoded(Image.new("1", (8000, 7000)), "PNG"), ImageTooLarge),
        ],
    )
    async def test_raises_verdicts(
        self, renderer: Renderer, give: Give, content: bytes, verdict: type[Exception]
    ) -> None:
        with pytest.raises(verdict):
            await render(renderer, give(content))
        assert (await render(renderer, give(GOOD))).thumbnails

    async def test_renders_many_at_once(self, renderer: Renderer, give: Give) -> None:
        assert len(await asyncio.gather(*(render(renderer, give(GOOD)) for _ in range(10)))) == 10

    async def test_missing_folder_raises_storage_unavailable(
        self, renderer: Renderer, give: Give, tmp_path: Path
    ) -> None:
        source, _ = give(GOOD)
        for missing in (source, tmp_path / "missing"):
            with pytest.raises(StorageUnavailable):
                await renderer.render(missing, DEFAULT_RECIPE, tmp_path / "missing")

    async def test_missing_source_raises_object_missing(self, renderer: Renderer, give: Give, tmp_path: Path) -> None:
        _, out = give(GOOD)
        with pytest.raises(ObjectMissing):
            await renderer.render(tmp_path / "deleted", DEFAULT_RECIPE, out)


async def test_returns_traits(renderer: Renderer, give: Give) -> None:
    content = encoded(Image.new("RGB", (640, 480), "#ff0000"), "PNG", exif=oriented(Image.new("L", (1, 1)), 1))
    traits = (await render(renderer, give(content))).traits
    assert traits.metadata_removed == (MetadataKind.EXIF,)
    assert traits.dominant_colour is not None
    assert len(traits.placeholder) > 20
