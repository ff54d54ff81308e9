"""This renderer, called in a warm process as the decoder processes call it."""

from pathlib import Path

from PIL import AvifImagePlugin

from benchmarks.imaging.workers.serve import serve
from image_service import __version__
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.isolation.malloc import keep_freed_memory, trim_excess
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render


def _render(source: Path, out: Path) -> None:
    render(source, DEFAULT_RECIPE, out, RenderLimits(formats=tuple(ImageFormat)))
    trim_excess()  # see below


if __name__ == "__main__":
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as isolation.child does, like the next, and like trim_excess
    keep_freed_memory()
    serve(__version__, _render)
