"""The worker with a renderer that waits instead: what is left is what it takes to give work out and to record it.

    python -m benchmarks.operations.waiting worker

It is the program itself, started by its own command line, with one method of the renderer replaced. Nothing in the
product knows of it. ``WAIT_SECONDS`` in the environment is how long an image takes; what it "makes" are files of the
sizes of real thumbnails.
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
from image_service.imaging.pool import RenderPool

_SIZES: Final = (150_000, 15_000, 3_000)
"""Bytes of the thumbnails, as of the default recipe's."""
_CONTENTS: Final = tuple(os.urandom(size) for size in _SIZES)
_DIGESTS: Final = tuple(hashlib.sha256(content).hexdigest() for content in _CONTENTS)


async def _start(_: RenderPool) -> None:
    """No decoder is needed."""


async def _render(_: RenderPool, _source: Path, recipe: Recipe, out: Path) -> Rendering:
    await asyncio.sleep(float(os.environ["WAIT_SECONDS"]))
    made = []
    for preset, content, digest in zip(recipe.presets, _CONTENTS, _DIGESTS, strict=True):
        path = out / preset.name
        await asyncio.to_thread(path.write_bytes, content)
        made.append(
            RenderedThumbnail(
                preset=preset.name,
                path=path,
                content_type="image/jpeg",
                width=100,
                height=75,
                size_bytes=len(content),
                sha256=digest,
            )
        )
    return Rendering(width=4000, height=3000, thumbnails=tuple(made), traits=TRAITS)


def main() -> None:
    """Run the program."""
    for name, replacement in {"start": _start, "render": _render}.items():
        setattr(RenderPool, name, replacement)
    image_service()


if __name__ == "__main__":
    main()
