"""Rendering outputs of a claimed image: what new images and late outputs share."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from image_service.database import Database
from image_service.domain.image import Claim, RenderedThumbnail, Rendering, Thumbnail
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.recipe import Recipe
from image_service.ports import EventSignal, ObjectAttributes, Renderer, Storage
from image_service.services.attempts import ProcessingPolicy, Work
from image_service.services.image_faults import render
from image_service.services.outage_retry import retry_on_outage

SUPERSEDED_FOR: Final = 60.0
"""Seconds for which replaced thumbnails are kept, because clients may still request them."""

Unwanted = Callable[[Mapping[str, RenderedThumbnail]], AbstractSet[str]]


class RenderingWork(Work):
    """Work that renders outputs of an image.

    Args:
        claim: The claim that it is done under.
        recipe: The image's recipe.
        database: Where images are recorded.
        storage: Where their files are.
        policy: How long claims last.
        signal: Tells of the events that the work records.
    """

    def __init__(
        self,
        claim: Claim,
        recipe: Recipe,
        *,
        database: Database,
        storage: Storage,
        policy: ProcessingPolicy,
        signal: EventSignal,
    ) -> None:
        super().__init__(claim)
        self._recipe = recipe
        self._database = database
        self._storage = storage
        self._policy = policy
        self._signal = signal

    @abstractmethod
    async def attempt(self, renderer: Renderer) -> bool:
        """Do the work, and record the result."""

    async def _render(
        self, renderer: Renderer, recipe: Recipe, unwanted: Unwanted | None = None
    ) -> tuple[Rendering, tuple[Thumbnail, ...]]:
        """Render outputs and store their files; returns the rendering, and what was stored.

        Args:
            renderer: What renders.
            recipe: The outputs to make.
            unwanted: Returns the names of those that are not to be stored.
        """
        fingerprints = {each.name: each.fingerprint for each in recipe.outputs}
        async with self._storage.scratch() as scratch:
            source = await self._storage.local_path(original_key(self.claim.image_id), scratch, self.claim.sha256)
            rendering = await render(renderer, source, recipe, scratch)
            dropped = unwanted({each.output: each for each in rendering.thumbnails}) if unwanted is not None else set()
            made = [each for each in rendering.thumbnails if each.output not in dropped]
            thumbnails = tuple(self._thumbnail(each, fingerprints[each.output]) for each in made)
            await self._storage.adopt(
                {each.key: file.path for each, file in zip(thumbnails, made, strict=True)},
                {each.key: ObjectAttributes(content_type=each.content_type) for each in thumbnails},
            )
        return rendering, thumbnails

    async def _record(self, record: Callable[[], Awaitable[bool]], thumbnails: tuple[Thumbnail, ...]) -> bool:
        """Record a result, retried on outages for half a lease. If the claim is lost, the files are deleted.

        Args:
            record: Returns False if the claim is lost.
            thumbnails: What was stored.
        """
        recorded = await retry_on_outage(record, budget=self._policy.lease / 2)
        self._signal.notify()
        return recorded or not await self._discard(thumbnails)

    async def _discard(self, thumbnails: tuple[Thumbnail, ...]) -> bool:
        """Delete this attempt's files unless they are recorded, as after a COMMIT whose reply was lost.

        Returns whether there were any to delete.
        """
        async with self._database.statement() as repositories:
            recorded = await repositories.images.thumbnail_keys({self.claim.image_id})
        unrecorded = [each.key for each in thumbnails if each.key not in recorded]
        await self._storage.delete(unrecorded)
        return bool(unrecorded)

    def _thumbnail(self, made: RenderedThumbnail, fingerprint: str) -> Thumbnail:
        return Thumbnail(
            output=made.output,
            key=thumbnail_key(self.claim.image_id, self.claim.attempt, made.output),
            content_type=made.content_type,
            width=made.width,
            height=made.height,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
            fingerprint=fingerprint,
        )
