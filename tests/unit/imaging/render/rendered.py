"""Helpers for tests of the pipeline: a small recipe, and access to its thumbnails."""

from collections.abc import Callable

from PIL import Image, ImageChops

from image_service.domain.image import Rendering
from image_service.domain.recipe import Preset, Recipe

SMALL = Recipe(presets=(Preset(name="small", width=40, height=40, quality=95),))


class Thumbnails:
    """The thumbnails of one file."""

    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering

    def __getitem__(self, preset: str) -> Image.Image:
        (made,) = (each for each in self.rendering.thumbnails if each.output == preset)
        image = Image.open(made.path)
        image.load()
        assert image.get_format_mimetype() == made.content_type
        return image

    @property
    def small(self) -> Image.Image:
        return self["small"]


Make = Callable[..., Thumbnails]


def assert_close(
    image: Image.Image, expected: tuple[int, ...], at: tuple[int, int] = (5, 5), tolerance: int = 6
) -> None:
    found = image.convert("RGB" if len(expected) == 3 else "RGBA").getpixel(at)
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True)), f"{found}, wanted {expected}"


def assert_alike(image: Image.Image, expected: Image.Image, tolerance: int = 12) -> None:
    assert image.size == expected.size
    difference = ImageChops.difference(image.convert("RGB"), expected.convert("RGB"))
    extremes = [channel.getextrema()[1] for channel in difference.split()]
    assert all(isinstance(high, (int, float)) and high <= tolerance for high in extremes), extremes
