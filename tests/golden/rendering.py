"""Reads the renderer's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from image_service.domain.image import RenderedThumbnail, Rendering
from image_service.domain.recipe import Preset, Recipe
from tests.golden.pictures import to_pixels
from tests.golden.reference import Pixels


def boxes(*sides: int, quality: int = 96) -> Recipe:
    """Return a recipe of square boxes, of such a high quality that encoder losses hide no error."""
    return Recipe(presets=tuple(Preset(name=f"{side}", width=side, height=side, quality=quality) for side in sides))


@dataclass(frozen=True, slots=True)
class Rendered:
    """The thumbnails of one file."""

    rendering: Rendering

    def __getitem__(self, preset: int | str) -> RenderedThumbnail:
        (made,) = (each for each in self.rendering.thumbnails if each.output == str(preset))
        return made

    def content(self, preset: int | str) -> bytes:
        """Return the thumbnail's file."""
        return self[preset].path.read_bytes()

    def image(self, preset: int | str) -> Image.Image:
        """Return the thumbnail, after checking its reported type and size."""
        made = self[preset]
        with Image.open(made.path) as image:
            image.load()
        assert image.get_format_mimetype() == made.content_type
        assert image.size == (made.width, made.height)
        return image

    def pixels(self, preset: int | str) -> Pixels:
        """Return the colours of a thumbnail without alpha."""
        image = self.image(preset)
        assert image.mode in {"L", "RGB"}
        return to_pixels(image)

    def pixels_with_alpha(self, preset: int | str) -> Pixels:
        """Return the colours and alpha of a thumbnail with both."""
        image = self.image(preset)
        assert image.mode == "RGBA"
        return to_pixels(image, "RGBA")


Make: TypeAlias = Callable[..., Rendered]
"""Renders content under a recipe, from a file of an optional name."""
