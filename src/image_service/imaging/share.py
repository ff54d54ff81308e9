"""A part of a renderer, for those who may not have all of it."""

import asyncio
from pathlib import Path

from image_service.domain.image import Rendering
from image_service.domain.recipe import Recipe
from image_service.ports import Renderer


class Share:
    """A ``Renderer`` that makes only so many images of another one's at once; more wait, first come, first served."""

    def __init__(self, renderer: Renderer, slots: int) -> None:
        self._renderer = renderer
        self._slots = asyncio.Semaphore(slots)

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Make every preset of the recipe; see ``Renderer.render``."""
        async with self._slots:
            return await self._renderer.render(source, recipe, out)
