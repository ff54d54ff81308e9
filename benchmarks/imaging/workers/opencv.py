"""OpenCV: JPEG decoded at a fraction of its size, area averaging, each thumbnail made from the one before."""

from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.imaging.workers.serve import QUALITY, SIZES, fit, names, serve

_cv: Any = import_module("cv2")  # only in the benchmark's environment, not in the type checker's


def _render(source: Path, out: Path) -> None:
    image = _cv.imread(str(source), _mode(source))
    if image is None:
        raise ValueError("cannot read this format")
    height, width = image.shape[:2]
    for size, name in names().items():
        wanted = fit(width, height, size)
        if wanted != (image.shape[1], image.shape[0]):
            image = _cv.resize(image, wanted, interpolation=_cv.INTER_AREA)
        _, data = _cv.imencode(".jpg", image, [_cv.IMWRITE_JPEG_QUALITY, QUALITY])
        (out / name).write_bytes(data)


def _mode(source: Path) -> int:
    """Return the smallest scale that still covers the largest thumbnail; other formats are decoded in full anyway."""
    if source.suffix != ".jpg":
        return int(_cv.IMREAD_COLOR)
    with Image.open(source) as header:  # reads no pixels
        longest = max(header.size)
    for factor in (8, 4, 2):
        if longest // factor >= SIZES[0]:
            return int(getattr(_cv, f"IMREAD_REDUCED_COLOR_{factor}"))
    return int(_cv.IMREAD_COLOR)


if __name__ == "__main__":
    _cv.setNumThreads(1)
    serve(f"OpenCV {_cv.__version__}", _render)
