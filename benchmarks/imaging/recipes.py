"""Renders the recipes of ``deploy/recipes.toml`` from drawn pictures: what they make, in bytes and milliseconds.

.venv/bin/python -m benchmarks.imaging.recipes                    print the table of docs/recipes.md
.venv/bin/python -m benchmarks.imaging.recipes --pictures docs    and make its pictures again
"""

import argparse
import asyncio
import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

from harness.images import encoded
from harness.scenery import landscape, product, sticker
from image_service.config import load_recipes
from image_service.domain.image import ImageFormat, RenderedThumbnail, Rendering
from image_service.domain.recipe import Recipe
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.steps import Step

ROOT: Final = Path(__file__).parents[2]
ORIGINALS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "avatar": ("a landscape of 4000x2667, JPEG", lambda: encoded(landscape(4000, 2667), "JPEG", quality=90)),
    "product": ("a lamp of 900x1200 on a transparent ground, PNG", lambda: encoded(product(2400), "PNG")),
    "hero": ("the landscape", lambda: encoded(landscape(4000, 2667), "JPEG", quality=90)),
    "sticker": ("24 frames of 480x480, lossless WebP", lambda: sticker(480)),
}
RUNS: Final = 5
_WIDTH: Final = 400
"""Pixels of the pictures in the docs."""
_HEAD: Final = (
    "| recipe, original | output | format | size | bytes | ms |",
    "|---|---|---|---|---:|---:|",
)


def main() -> None:
    """Print the table; make the pictures if a folder is given."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path, help="folder for the pictures")
    options.add_argument("--jxl", action="store_true", help="add JPEG XL to the hero")
    given = options.parse_args()
    text = (ROOT / "deploy/recipes.toml").read_text()
    if given.jxl:
        text = text.replace(
            'formats = ["jpeg", "webp", "avif"]\n# With', 'formats = ["jpeg", "webp", "avif", "jxl"]\n# With'
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "recipes.toml"
        file.write_text(text)
        recipes = load_recipes(file)
        print(*_HEAD, sep="\n")
        for name, (what, make) in ORIGINALS.items():
            recipe = recipes.find(name)
            assert recipe is not None
            source, out = Path(folder) / f"original-{name}", Path(folder) / name
            out.mkdir()
            source.write_bytes(make())
            rendering, times = asyncio.run(_rendered(source, recipe, out))
            _report(f"{name}: {what}, {source.stat().st_size:,} bytes", rendering, times)
            if given.pictures:
                _show(name, rendering.thumbnails, given.pictures)


async def _rendered(source: Path, recipe: Recipe, out: Path) -> tuple[Rendering, dict[str, float]]:
    """Return the last of several renderings, with the median milliseconds of each output: of its picture and file."""
    pool = RenderPool(
        1, RenderLimits(readable=(str(source.parent),), wall_seconds=60.0, cpu_seconds=60, formats=tuple(ImageFormat))
    )
    steps: list[dict[str, float]] = []
    try:
        for _ in range(RUNS):
            rendering = await pool.render(source, recipe, out)
            steps.append(dict(rendering.timings))
    finally:
        await pool.close()
    return rendering, {name: 1000 * statistics.median(run.get(name, 0.0) for run in steps) for name in steps[0]}


def _report(title: str, rendering: Rendering, times: dict[str, float]) -> None:
    for made in rendering.thumbnails:
        spent = sum(times.get(f"{step.value} {made.output}", 0.0) for step in (Step.RESIZE, Step.ENCODE))
        kind = made.content_type.removeprefix("image/")
        print(
            f"| {title} | `{made.output}` | {kind} | {made.width}x{made.height} | {made.size_bytes:,} | {spent:.0f} |"
        )
        title = ""
    if rendering.left_out:
        print(f"| | {', '.join(f'`{name}`' for name in rendering.left_out)} | | | left out | |")


def _show(name: str, thumbnails: Sequence[RenderedThumbnail], folder: Path) -> None:
    """Write what a recipe makes as one picture, or as it is if it moves."""
    first = thumbnails[0]
    if first.content_type == "image/gif":
        (folder / f"recipe-{name}.gif").write_bytes(first.path.read_bytes())
        return
    with Image.open(io.BytesIO(first.path.read_bytes())) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((_WIDTH, _WIDTH))
    shown.save(folder / f"recipe-{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
