"""Measures the memory growth of a decoder process over thousands of files of every kind, inside all its limits.

    .venv/bin/python -m benchmarks.imaging.flatness                  after `make bench-imaging`, which makes the files

Most are small, as most uploads are; one in twenty has 12 megapixels or more. Memory is read between two jobs.
"""

import argparse
import asyncio
import random
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from benchmarks.imaging.workers.serve import SIZES
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits

LARGE = Path("build/bench-imaging")
SMALL = {"jpg": {"quality": 85}, "png": {}, "webp": {"quality": 80}, "avif": {"speed": 10}, "gif": {}}
SHARE_OF_LARGE = 0.05


def main() -> None:
    """Render, and print the memory of the process at intervals."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--renders", type=int, default=5000, help="number of renderings (5000)")
    renders = options.parse_args().renders
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_run(renders, _small(Path(scratch)), sorted(LARGE.glob("*mp-*.[!hm]*")), Path(scratch)))


async def _run(renders: int, small: list[Path], large: list[Path], out: Path) -> None:
    # Never replaced, unlike in the service, which replaces it after 500 images.
    pool = RenderPool(1, replace(RenderLimits(), jobs_per_child=renders + 1))
    rng = random.Random(1)  # noqa: S311 — the same order every time
    try:
        for number in range(1, renders + 1):
            await pool.render(rng.choice(large if rng.random() < SHARE_OF_LARGE else small), DEFAULT_RECIPE, out)
            if number in {1, 50, 100, 200} or not number % 500:
                print(f"{number:6} renders: {_memory():4} MB", flush=True)
    finally:
        await pool.close()


def _small(folder: Path) -> list[Path]:
    """Write files of about a megapixel, each of a different size."""
    made = []
    with Image.open(LARGE / "12-mp-jpeg.jpg") as photograph:
        for number, (extension, options) in enumerate(4 * list(SMALL.items())):
            left = 190 * number
            file = folder / f"{number}.{extension}"
            photograph.crop((left, left // 2, left + SIZES[0] + 37 * number, left // 2 + 700)).save(file, **options)  # type: ignore[arg-type]  # the encoders' options
            made.append(file)
    return made


def _memory() -> int:
    """Return the resident memory of this process's only child, in megabytes."""
    tasks = Path("/proc/self/task").iterdir()
    (child,) = (pid for task in tasks for pid in (task / "children").read_text(encoding="ascii").split())
    pages = int(Path(f"/proc/{child}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 // 1_000_000


if __name__ == "__main__":
    main()
