"""Files and helpers for the tests of renderers."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil

from harness.images import encoded, gradient, noise
from image_service.domain.image import Rendering
from image_service.domain.recipe import DEFAULT_RECIPE, Recipe
from image_service.imaging.isolation.pool import RenderPool
from image_service.ports import Renderer

GOOD = encoded(gradient(640, 480), "JPEG")

MakePool = Callable[..., RenderPool]
Give = Callable[[bytes], tuple[Path, Path]]


@cache
def slow() -> bytes:
    """Return a file that takes a good part of a second: long enough to be interrupted."""
    return encoded(noise(4000, 4000), "PNG", compress_level=1)


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children() if _decodes(process)}


def _decodes(process: psutil.Process) -> bool:
    try:
        return "image_service.imaging.isolation.child" in process.cmdline()
    except psutil.NoSuchProcess:  # it has ended since, and may still be a zombie
        return False


async def render(renderer: Renderer, paths: tuple[Path, Path], recipe: Recipe = DEFAULT_RECIPE) -> Rendering:
    source, out = paths
    return await renderer.render(source, recipe, out)
