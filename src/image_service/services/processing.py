"""Processes one image: claims it, renders it, stores its thumbnails and records the outcome."""

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
from image_service.domain.lane import Lane, lane_after_decoder_failure
from image_service.domain.recipe import Recipe
from image_service.errors import (
    AttemptsExhausted,
    DecoderFailure,
    DecoderTimeout,
    InvalidImage,
    ObjectUnreadable,
    Outage,
    ServiceError,
)
from image_service.ports import NULL_OBSERVER, AttemptOutcome, Delivery, ObjectAttributes, Observer, Renderer, Storage
from image_service.services.image_faults import fault_of_image, render
from image_service.services.outage_retry import retry_on_outage

_MAX_RETRY_DELAY: Final = 60.0
_MAX_DOUBLINGS: Final = 10
_SUPERSEDED_FOR: Final = 60.0
"""Seconds for which replaced thumbnails are kept, because clients may still request them."""
_LOST: Final = "claim lost: claimed by another worker, or deleted"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingPolicy:
    """Limits on the attempts of an image."""

    lease: float
    """Seconds after which a claim ends unless it is extended."""
    heartbeat: float
    """Seconds between extensions of a claim."""
    max_attempts: int
    """Attempts that count, after which the image ends in ERROR; outages, drains and defects do not count."""
    max_decoder_failures: int
    """Decoder failures after which the image ends in ERROR."""
    retry_delay: float
    """Seconds before the second attempt; doubles with each further attempt."""


class Processing:
    """Handles queue messages."""

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
        """Make one attempt on an image. A ``Handler`` of the queue.

        When it returns, the message can be acknowledged, even if the image is unfinished: the reconciler then queues it
        when it is due. Cancelling releases the claim; the attempt does not count.

        Raises:
            Outage: a dependency is unavailable that the next image needs too; or the attempt failed for a reason that
                is not known to be the image.
        """
        facts = {"image_id": str(delivery.image_id), "request_id": delivery.request_id}
        with structlog.contextvars.bound_contextvars(**{key: value for key, value in facts.items() if value}):
            claim = await self._claim(delivery.image_id)
            self._observer.claimed(delivery.lane, claim)
            if claim is None:
                _log.info("claim skipped: finished, deleted or leased")
            elif claim.attempts_charged > self._policy.max_attempts:
                await self._fail(claim, AttemptsExhausted())
            else:
                await self._work(claim, delivery.lane)

    async def _work(self, claim: Claim, lane: Lane) -> None:
        """Make one attempt and record its outcome."""
        try:
            await self._attempt_while_held(claim, self._renderers[lane])
        except InvalidImage as error:
            await self._fail(claim, error)
        except DecoderFailure as failure:
            if self._is_final(claim, failure):
                await self._fail(claim, failure)
            else:
                await self._retry_later(claim, failure, decoder_failed_in=lane)
        except ObjectUnreadable as error:
            if not await self._storage_works():
                await self._give_back(claim)
                raise
            # It is this file alone. The attempt counts, or the image would be PROCESSING for ever.
            await self._retry_or_fail(claim, error)
        except Outage as outage:
            # Does not count against the image. The next image would fail too, so the queue delays the message.
            await self._give_back(claim)
            _log.warning("attempt ended by an outage", attempt=claim.attempt, reason=str(outage))
            raise
        except asyncio.CancelledError:
            await self._give_back(claim, budget=0)
            _log.info("attempt cancelled; claim released", attempt=claim.attempt)
            raise
        except Exception as error:
            _log.exception("attempt failed", attempt=claim.attempt)
            fault = fault_of_image(error)
            if fault is not None:
                await self._retry_or_fail(claim, fault)
                return
            # The next image may fail too, so the queue delays the message as in an outage.
            await self._retry_later(claim, ServiceError(), charge=False)
            raise Outage from error

    def _is_final(self, claim: Claim, failure: DecoderFailure) -> bool:
        """Whether no attempt follows. After a time-out one does at the most: each takes all the time there is."""
        if isinstance(failure, DecoderTimeout) and claim.decoder_failures:
            return True
        return claim.decoder_failures + 1 >= self._policy.max_decoder_failures

    async def _storage_works(self) -> bool:
        """Whether the storage is available at the moment."""
        try:
            await self._storage.probe()
        except Outage:
            return False
        return True

    async def _attempt_while_held(self, claim: Claim, renderer: Renderer) -> None:
        """Make the attempt and extend the lease meanwhile; cancel the attempt if the claim is lost."""
        attempt = asyncio.create_task(self._attempt(claim, renderer))
        extension = asyncio.create_task(self._extend_until_lost(claim))
        try:
            await asyncio.wait({attempt, extension}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (attempt, extension):
                task.cancel()
            await asyncio.wait({attempt, extension})
        if attempt.cancelled():
            extension.result()  # raises the error that ended it, if any
            _log.warning(_LOST, attempt=claim.attempt)
            self._observer.attempted(claim, AttemptOutcome.LOST)
        else:
            attempt.result()

    async def _attempt(self, claim: Claim, renderer: Renderer) -> None:
        async with self._storage.scratch() as scratch:
            source = await self._storage.local_path(original_key(claim.image_id), scratch, claim.sha256)
            rendering = await render(renderer, source, self._recipe, scratch)
            thumbnails = _thumbnails(claim, rendering)
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
                # The lease may end meanwhile. Fencing then decides, as for a worker that was paused.
                _log.warning("lease not extended", attempt=claim.attempt, reason=str(outage))

    async def _claim(self, image_id: UUID) -> Claim | None:
        async with self._database.statement() as repositories:
            return await repositories.claims.claim(image_id, lease=self._policy.lease)

    async def _discard(self, claim: Claim, thumbnails: tuple[Thumbnail, ...]) -> bool:
        """Delete this attempt's files unless they are recorded, as after a COMMIT whose reply was lost.

        Returns whether there were any to delete.
        """
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
        failed = await self._change(lambda claims: claims.fail(claim, ImageError(code=error.code, detail=error.detail)))
        event = "image ended in ERROR" if failed else _LOST
        _log.warning(event, attempt=claim.attempt, code=error.code, detail=error.detail)
        self._observer.attempted(claim, AttemptOutcome.ERROR if failed else AttemptOutcome.LOST, error.code)

    async def _retry_or_fail(self, claim: Claim, error: ServiceError) -> None:
        if claim.attempts_charged >= self._policy.max_attempts:
            await self._fail(claim, error)
        else:
            await self._retry_later(claim, error)

    async def _retry_later(
        self, claim: Claim, error: ServiceError, *, charge: bool = True, decoder_failed_in: Lane | None = None
    ) -> None:
        tries = claim.attempts_charged if charge else claim.attempt
        delay = min(_MAX_RETRY_DELAY, self._policy.retry_delay * 2 ** min(tries - 1, _MAX_DOUBLINGS))
        failed = decoder_failed_in is not None
        lane = None if decoder_failed_in is None else lane_after_decoder_failure(decoder_failed_in)
        released = await self._change(
            lambda claims: claims.release(
                claim, rest=delay, due_in=delay, charge=charge, decoder_failed=failed, lane=lane
            )
        )
        event = "attempt failed; another follows" if released else _LOST
        _log.warning(event, attempt=claim.attempt, code=error.code, in_seconds=delay)
        self._observer.attempted(claim, AttemptOutcome.RETRY if released else AttemptOutcome.LOST, error.code)

    async def _give_back(self, claim: Claim, *, budget: float | None = None) -> None:
        """Release the claim at once, uncharged, so that the redelivered message can claim the image."""
        self._observer.attempted(claim, AttemptOutcome.GIVEN_BACK)
        try:
            await self._change(
                lambda claims: claims.release(claim, rest=0, due_in=self._policy.lease, charge=False),
                budget=budget,
            )
        except Outage as outage:
            _log.warning("claim not released; its lease will end", attempt=claim.attempt, reason=str(outage))

    async def _change(
        self, change: Callable[[ClaimStatements], Awaitable[bool]], *, budget: float | None = None
    ) -> bool:
        """Make a change in its own transaction, retried on outages for half a lease by default."""

        async def once() -> bool:
            async with self._database.statement() as repositories:
                return await change(repositories.claims)

        return await retry_on_outage(once, budget=self._policy.lease / 2 if budget is None else budget)


def _thumbnails(claim: Claim, rendering: Rendering) -> tuple[Thumbnail, ...]:
    """Returns the thumbnails of a rendering, with the keys of this attempt."""
    return tuple(
        Thumbnail(
            output=made.output,
            key=thumbnail_key(claim.image_id, claim.attempt, made.output),
            content_type=made.content_type,
            width=made.width,
            height=made.height,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
        )
        for made in rendering.thumbnails
    )
