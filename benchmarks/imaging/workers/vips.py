"""pyvips: thumbnails with shrink-on-load, each made from the one before."""

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.imaging.workers.serve import QUALITY, SIZES, names, serve

_vips: Any = import_module("pyvips")  # only in the benchmark's environment, not in the type checker's


def _render(source: Path, out: Path) -> None:
    image = _vips.Image.thumbnail(str(source), SIZES[0], height=SIZES[0], size="down").copy_memory()
    for size, name in names().items():
        if size != SIZES[0]:
            image = image.thumbnail_image(size, height=size, size="down").copy_memory()
        (out / name).write_bytes(image.jpegsave_buffer(Q=QUALITY, keep="none"))


if __name__ == "__main__":
    _vips.cache_set_max(0)  # or it would return the cached result
    version = ".".join(str(_vips.version(part)) for part in range(3))
    serve(f"pyvips {_vips.__version__}, libvips {version}", _render)
