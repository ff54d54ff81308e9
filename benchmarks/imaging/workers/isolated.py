"""This renderer in its decoder process, inside all limits, as the service uses it."""

import asyncio
from pathlib import Path

from benchmarks.imaging.workers.serve import serve
from image_service import __version__
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.limits import RenderLimits
from image_service.imaging.pool import RenderPool


def main() -> None:
    """Serve jobs through a pool with one slot."""
    pool: RenderPool | None = None
    with asyncio.Runner() as runner:

        def render(source: Path, out: Path) -> None:
            nonlocal pool
            if pool is None:
                # HEIC is loaded by processes that may meet it, so by those that measure it only.
                heic = (ImageFormat.HEIC,) if source.suffix == ".heic" else ()
                pool = RenderPool(1, RenderLimits(formats=(*DEFAULT_FORMATS, *heic)))
            runner.run(pool.render(source, DEFAULT_RECIPE, out))

        try:
            serve(__version__, render)
        finally:
            if pool:
                runner.run(pool.close())


if __name__ == "__main__":
    main()
