"""This renderer in its decoder process, inside all limits, as the service uses it."""

import asyncio
from pathlib import Path

from benchmarks.imaging.workers.serve import serve
from image_service import __version__
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits


def main() -> None:
    """Serve jobs through a pool with one slot."""
    pool: RenderPool | None = None
    with asyncio.Runner() as runner:

        def render(source: Path, out: Path) -> None:
            nonlocal pool
            if pool is None:
                # Only processes with HEIC enabled load its library, so it is enabled only to measure it.
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
