"""The lower bound for every renderer: libjpeg-turbo's scaled decode, and three encodes of the right sizes."""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.imaging.workers.serve import QUALITY, SIZES, fit, names, serve

_numpy: Any = import_module("numpy")
_jpeg: Any = import_module("simplejpeg")  # only in the benchmark's environment, not in the type checker's


def _render(source: Path, out: Path) -> None:
    data = source.read_bytes()
    height, width, _, _ = _jpeg.decode_jpeg_header(data)
    least_width, least_height = fit(width, height, SIZES[0])
    pixels = _jpeg.decode_jpeg(data, "RGB", min_width=least_width, min_height=least_height)
    for size, name in names().items():
        wanted_width, wanted_height = fit(width, height, size)
        part = _numpy.ascontiguousarray(pixels[:wanted_height, :wanted_width])
        (out / name).write_bytes(_jpeg.encode_jpeg(part, QUALITY, "RGB", "420"))


if __name__ == "__main__":
    serve(f"simplejpeg {version('simplejpeg')}", _render)
