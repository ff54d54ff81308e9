from collections.abc import Callable
from pathlib import Path

import pytest

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Recipe
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render
from tests.golden.rendering import Rendered


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Rendered]:
    """Render a file of the given content and name."""

    def make(content: bytes, recipe: Recipe, name: str = "source") -> Rendered:
        source, out = tmp_path / name, tmp_path / "out"
        source.write_bytes(content)
        out.mkdir(exist_ok=True)
        return Rendered(render(source, recipe, out, RenderLimits(formats=tuple(ImageFormat))))

    return make
