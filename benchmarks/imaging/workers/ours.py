"""This renderer, called in a warm process as the decoder processes call it."""

from pathlib import Path

from benchmarks.imaging.workers.serve import serve
from PIL import AvifImagePlugin

from image_service import __version__
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging import render


def _render(source: Path, out: Path) -> None:
    render(source, DEFAULT_RECIPE, out)


if __name__ == "__main__":
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as imaging.child does
    serve(__version__, _render)
