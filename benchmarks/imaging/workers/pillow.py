"""Pillow, as its documentation suggests; with the argument `draft`, letting the JPEG decoder skip detail."""

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import PIL
from PIL import AvifImagePlugin, Image, ImageOps

from benchmarks.imaging.workers.serve import QUALITY, SIZES, names, serve


def _render(source: Path, out: Path) -> None:
    with Image.open(source) as image:
        if "draft" in sys.argv:
            image.draft("RGB", (SIZES[0], SIZES[0]))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.info.clear()
    for size, name in names().items():
        thumbnail = upright.copy()
        thumbnail.thumbnail((size, size), Image.Resampling.LANCZOS)
        thumbnail.save(out / name, "JPEG", quality=QUALITY)


if __name__ == "__main__":
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener(thumbnails=False)
    serve(f"Pillow {PIL.__version__}", _render)
