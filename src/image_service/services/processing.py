"""Turning one accepted image into its thumbnails, under a claim that others can tell the end of."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.database.claims import ClaimStatements
from image_service.domain.image import Claim, ImageError, Rendering, Result, Thumbnail
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipe
from image_service.errors import AttemptsExhausted, DecoderFailure, InvalidImage, Outage, ServiceError
from image_service.ports import NULL_OBSERVER, AttemptOutcome, Delivery, ObjectAttributes, Observer, Renderer, Storage
from image_service.services.outage_retry import retry_on_outage

_LONGEST_RETRY_DELAY: Final = 60.0
_SUPERSEDED_FOR: Final = 60.0
"""Seconds for which thumbnails stay that were replaced: their readers may be on the way."""
_LOST: Final = "claim lost: the image was given to another worker, or deleted"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingPolicy:
    """How long and how often an image is tried."""

    lease: float
    """Seconds that a claim lasts without a sign of life."""
    heartbeat: float
    """Seconds between signs of life."""
    max_attempts: int
    """Attempts without a result that an image gets; those that an outage or a drain ended do not count."""
    max_decoder_failures: int
    """Deaths of the decoder that it gets."""
    retry_delay: float
    """Seconds before the second attempt; doubles with each further one."""


class Processing:
    """The use case behind every queue message."""

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        renderers: Mapping[Lane, Renderer],
        recipe: Recipe,
        policy: ProcessingPolicy,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._database = database
        self._storage = storage
        self._renderers = renderers
        self._recipe = recipe
        self._policy = policy
        self._observer = observer

    async def process(self, delivery: Delivery) -> None:
        """Bring an image to DONE or ERROR, or leave it to a later attempt. A ``Handler`` of the queue.

        Returning means that the message is done with, even where the image is not: then the reconciler queues it when
        its time has come. Cancelling gives the claim up at no cost to the image.

        Raises:
            Outage: something is away that the next image needs as well.
        """
        facts = {"image_id": str(delivery.image_id), "request_id": delivery.request_id}
        with structlog.contextvars.bound_contextvars(**{key: value for key, value in facts.items() if value}):
            claim = await self._claim(delivery.image_id)
            self._observer.claimed(delivery.lane, claim)
            if claim is None:
                _log.info("nothing to do: the image is finished, gone, or somebody else's")
            elif claim.attempts_charged > self._policy.max_attempts:
                await self._fail(claim, AttemptsExhausted())
            else:
                await self._work(claim, self._renderers[delivery.lane])

    async def _work(self, claim: Claim, renderer: Renderer) -> None:
        """One attempt, and what its end means for the image."""
        try:
            await self._attempt_while_held(claim, renderer)
        except InvalidImage as verdict:
            await self._fail(claim, verdict)
        except DecoderFailure as failure:
            if claim.decoder_failures + 1 >= self._policy.max_decoder_failures:
                await self._fail(claim, failure)
            else:
                await self._retry_later(claim, failure, decoder_failed=True)
        except Outage as outage:
            # Not this image's fault, and the next one would fare no better: the queue holds the message back.
            await self._give_back(claim)
            _log.warning("attempt ended by an outage", attempt=claim.attempt, reason=outage.detail)
            raise
        except asyncio.CancelledError:
            await self._give_back(claim, budget=0)
            _log.info("attempt given back", attempt=claim.attempt)
            raise
        except Exception as error:  # noqa: BLE001 — whatever it is, the image must not stay PROCESSING for ever
            _log.exception("attempt failed", attempt=claim.attempt)
            final = error if isinstance(error, ServiceError) else AttemptsExhausted()
            if claim.attempts_charged >= self._policy.max_attempts:
                await self._fail(claim, final)
            else:
                await self._retry_later(claim, final)

    async def _attempt_while_held(self, claim: Claim, renderer: Renderer) -> None:
        """The attempt, with signs of life beside it; ended when the claim turns out to be lost."""
        attempt = asyncio.create_task(self._attempt(claim, renderer))
        signs_of_life = asyncio.create_task(self._extend_until_lost(claim))
        try:
            await asyncio.wait({attempt, signs_of_life}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (attempt, signs_of_life):
                task.cancel()
            await asyncio.wait({attempt, signs_of_life})
        if attempt.cancelled():
            signs_of_life.result()  # raises what ended them, if that was an error
            _log.warning(_LOST, attempt=claim.attempt)
            self._observer.attempted(claim, AttemptOutcome.LOST)
        else:
            attempt.result()

    async def _attempt(self, claim: Claim, renderer: Renderer) -> None:
        async with self._storage.scratch() as scratch:
            source = await self._storage.local_path(original_key(claim.image_id), scratch)
            rendering = await renderer.render(source, self._recipe, scratch)
            thumbnails = _stored(claim, rendering)
            await self._storage.adopt(
                {each.key: made.path for each, made in zip(thumbnails, rendering.thumbnails, strict=True)},
                {each.key: ObjectAttributes(content_type=each.content_type) for each in thumbnails},
            )
        result = Result(
            width=rendering.width,
            height=rendering.height,
            thumbnails=thumbnails,
            traits=rendering.traits,
            recipe=self._recipe.fingerprint,
        )
        if await self._complete(claim, result) or not await self._discard(claim, thumbnails):
            _log.info("image done", attempt=claim.attempt)
            self._observer.attempted(claim, AttemptOutcome.DONE)
        else:
            _log.warning(_LOST, attempt=claim.attempt)
            self._observer.attempted(claim, AttemptOutcome.LOST)

    async def _extend_until_lost(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self._policy.heartbeat)
            try:
                async with self._database.statement() as repositories:
                    if not await repositories.claims.extend(claim, lease=self._policy.lease):
                        return
            except Outage as outage:
                # The lease may run out meanwhile. Then the fence decides, as it does for a worker that was paused.
                _log.warning("no sign of life sent", attempt=claim.attempt, reason=outage.detail)

    async def _claim(self, image_id: UUID) -> Claim | None:
        async with self._database.statement() as repositories:
            return await repositories.claims.claim(image_id, lease=self._policy.lease)

    async def _discard(self, claim: Claim, thumbnails: tuple[Thumbnail, ...]) -> bool:
        """Remove this attempt's files, unless its commit went through and only the reply to it was lost."""
        async with self._database.statement() as repositories:
            recorded = await repositories.images.thumbnail_keys({claim.image_id})
        unrecorded = [each.key for each in thumbnails if each.key not in recorded]
        await self._storage.delete(unrecorded)
        return bool(unrecorded)

    async def _complete(self, claim: Claim, result: Result) -> bool:
        """Record the result: in one statement, or in a transaction that also replaces the thumbnails there were."""

        async def once() -> bool:
            if not claim.reprocessing:
                async with self._database.statement() as repositories:
                    return await repositories.claims.complete(claim, result)
            async with self._database.transaction() as repositories:
                return await repositories.claims.complete(claim, result, superseded_for=_SUPERSEDED_FOR)

        return await retry_on_outage(once, budget=self._policy.lease / 2)

    async def _fail(self, claim: Claim, error: ServiceError) -> None:
        failed = await self._change(lambda images: images.fail(claim, ImageError(code=error.code, detail=error.detail)))
        event = "image ended in ERROR" if failed else _LOST
        _log.warning(event, attempt=claim.attempt, code=error.code, detail=error.detail)
        self._observer.attempted(claim, AttemptOutcome.ERROR if failed else AttemptOutcome.LOST, error.code)

    async def _retry_later(self, claim: Claim, error: ServiceError, *, decoder_failed: bool = False) -> None:
        delay = min(_LONGEST_RETRY_DELAY, self._policy.retry_delay * 2 ** (claim.attempts_charged - 1))
        released = await self._change(
            lambda images: images.release(claim, rest=delay, due_in=delay, charge=True, decoder_failed=decoder_failed)
        )
        event = "attempt failed; another follows" if released else _LOST
        _log.warning(event, attempt=claim.attempt, code=error.code, in_seconds=delay)
        self._observer.attempted(claim, AttemptOutcome.RETRY if released else AttemptOutcome.LOST, error.code)

    async def _give_back(self, claim: Claim, *, budget: float | None = None) -> None:
        """Free the claim at once and uncharged: the message goes back to the queue and finds the image claimable."""
        self._observer.attempted(claim, AttemptOutcome.GIVEN_BACK)
        try:
            await self._change(
                lambda images: images.release(claim, rest=0, due_in=self._policy.lease, charge=False),
                budget=budget,
            )
        except Outage as outage:
            _log.warning("claim not given back; its lease will run out", attempt=claim.attempt, reason=outage.detail)

    async def _change(
        self, change: Callable[[ClaimStatements], Awaitable[bool]], *, budget: float | None = None
    ) -> bool:
        """Make a change in a transaction of its own, through outages of up to half a lease unless told otherwise."""

        async def once() -> bool:
            async with self._database.statement() as repositories:
                return await change(repositories.claims)

        return await retry_on_outage(once, budget=self._policy.lease / 2 if budget is None else budget)


def _stored(claim: Claim, rendering: Rendering) -> tuple[Thumbnail, ...]:
    """What a rendering becomes once it is stored by this attempt."""
    return tuple(
        Thumbnail(
            preset=made.preset,
            key=thumbnail_key(claim.image_id, claim.attempt, made.preset),
            content_type=made.content_type,
            width=made.width,
            height=made.height,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
        )
        for made in rendering.thumbnails
    )
