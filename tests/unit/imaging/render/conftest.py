from pathlib import Path
from typing import Any

import pytest

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Recipe
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render
from tests.unit.imaging.render.rendered import SMALL, Make, Thumbnails


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(content: bytes, recipe: Recipe = SMALL, **options: Any) -> Thumbnails:  # noqa: ANN401  (limits)
        source = tmp_path / "source"
        source.write_bytes(content)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        limits = RenderLimits(**({"formats": tuple(ImageFormat)} | options))
        return Thumbnails(render(source, recipe, out, limits))

    return make
