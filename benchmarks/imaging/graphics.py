"""Measures what JPEG 4:2:0 costs graphics, and what the renderer makes of them instead.

.venv/bin/python -m benchmarks.imaging.graphics                  print the table of docs/graphics.md
.venv/bin/python -m benchmarks.imaging.graphics --crops docs     and make its pictures again
"""

import argparse
import io
import time
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.imaging.quality import Pixels, similarity
from harness.graphics import GRAPHICS
from harness.images import encoded
from image_service.domain.geometry import output_size
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.render.encoding import encode
from image_service.imaging.render.graphics import is_graphic
from image_service.imaging.resizing import resize

PRESET: Final = DEFAULT_RECIPE.outputs[-1]
CROPS: Final = {"terminal": (0, 4, 120, 64), "wordmark": (90, 300, 210, 360), "subpixel text": (16, 10, 136, 70)}
"""The parts that are shown: left, upper, right and lower edge in pixels."""
_ENLARGED: Final = 3
_HEAD: Final = (
    "| picture | before KB | SSIM Y, Cb, Cr | after KB | as | SSIM Y, Cb, Cr | JPEG 4:4:4 KB | encoding ms |",
    "|---|---:|---|---:|---|---|---:|---:|",
)


def main() -> None:
    """Print the table; make the pictures if a folder is given."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--crops", type=Path, help="folder for the pictures")
    folder = options.parse_args().crops
    print(*_HEAD, sep="\n")
    for name, draw in GRAPHICS.items():
        image = draw()
        image = resize(image, output_size(*image.size, PRESET))
        before, full = (
            encoded(image, "JPEG", quality=PRESET.quality, **sampling) for sampling in ({}, {"subsampling": 0})
        )
        began = time.process_time()
        after = encode(image.copy(), PRESET, graphic=is_graphic(image))
        spent = time.process_time() - began
        print(
            f"| {name} | {_kilobytes(before)} | {_likeness(image, before)} | {_kilobytes(after.content)} "
            f"| {after.format.value.upper()} | {_likeness(image, after.content)} | {_kilobytes(full)} "
            f"| {1000 * spent:.0f} |"
        )
        if folder and name in CROPS:
            path = folder / f"graphics-{name.replace(' ', '-')}.png"
            _side_by_side(before, bytes(after.content), CROPS[name]).quantize(128).save(path, optimize=True)


def _kilobytes(content: bytes | memoryview) -> str:
    return f"{len(content) / 1024:.1f}"


def _likeness(image: Image.Image, content: bytes | memoryview) -> str:
    """Return the similarity of luma and both chroma planes, at full resolution."""
    one, other = (_planes(each) for each in (image, _opened(content)))
    return ", ".join(
        f"{similarity(one[..., plane], other[..., plane]):.3f}".replace("0.", ".", 1) for plane in range(3)
    )


def _planes(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB").convert("YCbCr"), np.float64)


def _opened(content: bytes | memoryview) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
    return image


def _side_by_side(before: bytes, after: bytes, box: tuple[int, int, int, int]) -> Image.Image:
    left, upper, right, lower = box
    width, height = (right - left) * _ENLARGED, (lower - upper) * _ENLARGED
    picture = Image.new("RGB", (2 * width + _ENLARGED, height), "white")
    for at, content in enumerate((before, after)):
        part = _opened(content).convert("RGB").crop(box).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(part, (at * (width + _ENLARGED), 0))
    return picture


if __name__ == "__main__":
    main()
