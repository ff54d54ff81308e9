"""The test images become what they are meant to become, in the service's decoders."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import CorruptImage, DecoderTimeout
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from tests.faults.pictures import POISON_LIMIT, POISON_PIXELS, Pictures


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture
async def pool() -> AsyncIterator[RenderPool]:
    pool = RenderPool(1, RenderLimits(cpu_seconds=POISON_LIMIT, max_pixels=POISON_PIXELS))
    await pool.start()
    yield pool
    await pool.close()


async def test_valid_images_can_be_rendered(pictures: Pictures, pool: RenderPool, tmp_path: Path) -> None:
    rng = random.Random(0)
    contents = {upload.content for upload in (pictures.valid(rng) for _ in range(100))}
    assert len(contents) == 100
    for content in contents:
        (tmp_path / "source").write_bytes(content)
        assert len((await pool.render(tmp_path / "source", DEFAULT_RECIPE, tmp_path)).thumbnails) == 3


async def test_corrupt_images_are_rejected(pictures: Pictures, pool: RenderPool, tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(10):
        (tmp_path / "source").write_bytes(pictures.corrupt(rng).content)
        with pytest.raises(CorruptImage):
            await pool.render(tmp_path / "source", DEFAULT_RECIPE, tmp_path)


async def test_poison_image_exceeds_the_limits(pictures: Pictures, pool: RenderPool, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(pictures.poison(random.Random(0)).content)
    with pytest.raises(DecoderTimeout):
        await pool.render(tmp_path / "source", DEFAULT_RECIPE, tmp_path)
