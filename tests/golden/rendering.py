"""Reads what the renderer made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from image_service.domain.image import RenderedThumbnail, Rendering
from image_service.domain.recipe import Preset, Recipe
from tests.golden.pictures import to_pixels
from tests.golden.reference import Pixels


def boxes(*sides: int, quality: int = 96) -> Recipe:
    """A recipe of square boxes, of so high a quality that the encoder's losses hide nothing."""
    return Recipe(presets=tuple(Preset(name=f"{side}", width=side, height=side, quality=quality) for side in sides))


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of one file."""

    rendering: Rendering

    def __getitem__(self, preset: int | str) -> RenderedThumbnail:
        (made,) = (each for each in self.rendering.thumbnails if each.preset == str(preset))
        return made

    def content(self, preset: int | str) -> bytes:
        """The thumbnail's file."""
        return self[preset].path.read_bytes()

    def image(self, preset: int | str) -> Image.Image:
        """The thumbnail, which is of the type and size that it is said to be of."""
        made = self[preset]
        with Image.open(made.path) as image:
            image.load()
        assert image.get_format_mimetype() == made.content_type
        assert image.size == (made.width, made.height)
        return image

    def pixels(self, preset: int | str) -> Pixels:
        """The colours of a thumbnail that has no alpha."""
        image = self.image(preset)
        assert image.mode in {"L", "RGB"}
        return to_pixels(image)

    def pixels_with_alpha(self, preset: int | str) -> Pixels:
        """The colours and alpha of a thumbnail that has both."""
        image = self.image(preset)
        assert image.mode == "RGBA"
        return to_pixels(image, "RGBA")


Make: TypeAlias = Callable[..., Rendered]
"""Renders content under a recipe, from a file of a name that may be given."""
