"""The lanes that a worker consumes, and the number of images each lane may hold and render at once."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image_service.bootstrap import Resources, decoder_pool, observed_renderer, processing
from image_service.config import Settings
from image_service.domain.image import Rendering
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipe
from image_service.imaging.isolation.pool import RenderPool
from image_service.ports import Handler, Renderer

EXPRESS_SLOTS: Final = 1
"""Decoders in addition to the configured number, which only images of the express lane may use."""
BACKFILL_SLOTS: Final = 1
"""Decoders of the separate pool for the backfill lane."""
AHEAD: Final = 4
"""Images taken in addition to those that can be decoded, or half the decode slots if that is more."""
_BACKFILL_NICENESS: Final = 10
"""Low scheduling priority, which still gets a tenth of a processor while all others are busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLane:
    """How a worker consumes one lane."""

    lane: Lane
    handler: Handler
    prefetch: int
    """Images the worker holds at once."""
    background: bool
    """Whether its images wait until the worker handles no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan:
    """Everything a worker consumes, and the decoders it renders with."""

    lanes: tuple[PlannedLane, ...]
    pools: tuple[RenderPool, ...]
    """The pool of new images first."""


def plan_lanes(settings: Settings, resources: Resources) -> LanePlan:
    """Returns the lanes of a worker with ``DECODE_SLOTS`` decode slots. No process is started.

    Images of the normal lane use the decode slots. Images of the express lane use these and one decoder more, so that
    normal images never occupy all. The backfill lane has a decoder of its own, at low priority.

    A worker takes more new images than it has decoders: some are claimed or stored while others are decoded.
    """
    slots = settings.decode_slots
    express_slots = slots + EXPRESS_SLOTS
    ahead = max(AHEAD, slots // 2)

    main = decoder_pool(settings, resources, "main", express_slots)
    backfill = decoder_pool(settings, resources, "backfill", BACKFILL_SLOTS, niceness=_BACKFILL_NICENESS)
    new_images, backfill_images = observed_renderer(resources, main), observed_renderer(resources, backfill)
    renderers: dict[Lane, Renderer] = {
        Lane.NORMAL: ConcurrencyLimit(new_images, slots),
        Lane.EXPRESS: ConcurrencyLimit(new_images, express_slots),
        Lane.BACKFILL: ConcurrencyLimit(backfill_images, BACKFILL_SLOTS),
    }
    handler = processing(settings, resources, renderers).process
    return LanePlan(
        lanes=(
            PlannedLane(lane=Lane.NORMAL, handler=handler, prefetch=slots + ahead, background=False),
            PlannedLane(lane=Lane.EXPRESS, handler=handler, prefetch=express_slots + ahead, background=False),
            PlannedLane(lane=Lane.BACKFILL, handler=handler, prefetch=BACKFILL_SLOTS, background=True),
        ),
        pools=(main, backfill),
    )


class ConcurrencyLimit:
    """A ``Renderer`` that renders at most ``slots`` images of another one at once; others wait in order of arrival."""

    def __init__(self, renderer: Renderer, slots: int) -> None:
        self._renderer = renderer
        self._slots = asyncio.Semaphore(slots)

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Render every output of the recipe; see ``Renderer.render``."""
        async with self._slots:
            return await self._renderer.render(source, recipe, out)
