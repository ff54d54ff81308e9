"""Runs the worker with a renderer that sleeps, to measure the coordination without the rendering.

    python -m benchmarks.operations.sleeping_renderer worker

It is the program itself, started by its own command line, with two methods of the renderer replaced. Each image takes
the seconds in the environment variable ``RENDER_SECONDS``; the files written have the sizes of real thumbnails.
"""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final

from harness.fakes import TRAITS
from image_service.cli import main as image_service
from image_service.domain.image import RenderedThumbnail, Rendering
from image_service.domain.recipe import Recipe
from image_service.imaging.isolation.pool import RenderPool

_SIZES: Final = (150_000, 15_000, 3_000)
"""Bytes of the default recipe's thumbnails."""
_CONTENTS: Final = tuple(os.urandom(size) for size in _SIZES)
_DIGESTS: Final = tuple(hashlib.sha256(content).hexdigest() for content in _CONTENTS)


async def _start(_: RenderPool) -> None:
    """Do nothing: no decoder process is needed."""


async def _render(_: RenderPool, _source: Path, recipe: Recipe, out: Path) -> Rendering:
    await asyncio.sleep(float(os.environ["RENDER_SECONDS"]))
    thumbnails = []
    for preset, content, digest in zip(recipe.outputs, _CONTENTS, _DIGESTS, strict=True):
        path = out / preset.name
        await asyncio.to_thread(path.write_bytes, content)
        thumbnails.append(
            RenderedThumbnail(
                output=preset.name,
                path=path,
                content_type="image/jpeg",
                width=100,
                height=75,
                size_bytes=len(content),
                sha256=digest,
            )
        )
    return Rendering(width=4000, height=3000, thumbnails=tuple(thumbnails), traits=TRAITS)


def main() -> None:
    """Run the program with the replaced renderer."""
    for name, replacement in {"start": _start, "render": _render}.items():
        setattr(RenderPool, name, replacement)
    image_service()


if __name__ == "__main__":
    main()
