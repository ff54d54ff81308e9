"""Attempts: one try at some work on a claimed image. The lease is extended meanwhile, and every outcome is recorded."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from image_service.domain.image import Claim
from image_service.domain.lane import Lane
from image_service.errors import (
    DecoderFailure,
    DecoderTimeout,
    InvalidImage,
    ObjectUnreadable,
    Outage,
    ServiceError,
)
from image_service.ports import AttemptOutcome, Observer, Renderer, Storage
from image_service.services.image_faults import fault_of_image
from image_service.services.outage_retry import retry_on_outage

_MAX_RETRY_DELAY: Final = 60.0
_MAX_DOUBLINGS: Final = 10
_UNKNOWN_DELAY: Final = 10.0
_MAX_UNKNOWN_DELAY: Final = 600.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How a claim is given up without a result."""

    rest: float
    """Seconds before the next claim."""
    due_in: float
    """Seconds after which the reconciler queues the image again."""
    charge: bool
    """Whether the attempt counts against the image."""
    decoder_failed_in: Lane | None = None
    """The lane in which the decoder died on it; None: it did not."""


class Work(ABC):
    """Some work on an image, under a claim.

    The methods raise ``Outage`` if the database is unavailable: the change may or may not have been made, and it is
    safe to repeat. They return False if the claim is lost; then nothing was changed.
    """

    done: str
    """The event that is logged when the work is done."""
    failed: str
    """The event that is logged when it is given up for good."""
    failure: AttemptOutcome
    """The outcome then."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    @abstractmethod
    async def attempt(self, renderer: Renderer) -> bool:
        """Do the work, and record the result."""

    @abstractmethod
    async def extend(self) -> bool:
        """Extend the lease."""

    @abstractmethod
    async def fail(self, error: ServiceError) -> bool:
        """Record that the work cannot be done."""

    @abstractmethod
    async def release(self, release: Release) -> bool:
        """Give up the claim without a result."""


class Attempts:
    """Makes attempts.

    Args:
        storage: Where files are, to tell a damaged file from an outage.
        policy: The limits.
        observer: Notified of every outcome.
    """

    def __init__(self, *, storage: Storage, policy: ProcessingPolicy, observer: Observer) -> None:
        self._storage = storage
        self._policy = policy
        self._observer = observer

    async def make(self, work: Work, renderer: Renderer, lane: Lane) -> None:
        """Make one attempt and record its outcome.

        Cancelling releases the claim; the attempt does not count.

        Raises:
            Outage: a dependency is unavailable that the next image needs too; or the attempt failed for a reason that
                is not known to be the image.
        """
        try:
            await self._while_held(work, renderer)
        except InvalidImage as error:
            await self.fail(work, error)
        except DecoderFailure as failure:
            if self._is_final(work.claim, failure):
                await self.fail(work, failure)
            else:
                await self._retry_later(work, failure, decoder_failed_in=lane)
        except ObjectUnreadable as error:
            if not await self._storage_works():
                await self._give_back(work)
                raise
            # It is this file alone. The attempt counts, or the image would be PROCESSING for ever.
            await self._retry_or_fail(work, error)
        except Outage as outage:
            # Does not count against the image. The next image would fail too, so the queue delays the message.
            await self._give_back(work)
            _log.warning("attempt ended by an outage", attempt=work.claim.attempt, reason=str(outage))
            raise
        except asyncio.CancelledError:
            await self._give_back(work, budget=0)
            _log.info("attempt cancelled; claim released", attempt=work.claim.attempt)
            raise
        except Exception as error:
            _log.exception("attempt failed", attempt=work.claim.attempt)
            fault = fault_of_image(error)
            if fault is not None:
                await self._retry_or_fail(work, fault)
                return
            # The next image may fail too, so the queue delays the message as in an outage.
            await self._retry_later(work, ServiceError(), charge=False)
            raise Outage from error

    async def fail(self, work: Work, error: ServiceError) -> None:
        """Give the work up for good."""
        failed = await self._change(lambda: work.fail(error))
        event = work.failed if failed else _LOST
        _log.warning(event, attempt=work.claim.attempt, code=error.code, detail=error.detail)
        self._observer.attempted(work.claim, work.failure if failed else AttemptOutcome.LOST, error.code)

    async def leave(self, work: Work) -> None:
        """Release the claim at once, uncharged: this worker does not know the recipe, and another one may."""
        delay = _growing(_UNKNOWN_DELAY, work.claim.attempt, most=_MAX_UNKNOWN_DELAY)
        await self._change(lambda: work.release(Release(rest=0, due_in=delay, charge=False)))
        _log.warning("recipe unknown; left to another worker", recipe=work.claim.recipe_name, in_seconds=delay)
        self._observer.attempted(work.claim, AttemptOutcome.UNKNOWN_RECIPE)

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

    async def _while_held(self, work: Work, renderer: Renderer) -> None:
        """Make the attempt and extend the lease meanwhile; cancel the attempt if the claim is lost."""
        attempt = asyncio.create_task(work.attempt(renderer))
        extension = asyncio.create_task(self._extend_until_lost(work))
        try:
            await asyncio.wait({attempt, extension}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (attempt, extension):
                task.cancel()
            await asyncio.wait({attempt, extension})
        if attempt.cancelled():
            extension.result()  # raises the error that ended it, if any
        if not attempt.cancelled() and attempt.result():
            _log.info(work.done, attempt=work.claim.attempt)
            self._observer.attempted(work.claim, AttemptOutcome.DONE)
        else:
            _log.warning(_LOST, attempt=work.claim.attempt)
            self._observer.attempted(work.claim, AttemptOutcome.LOST)

    async def _extend_until_lost(self, work: Work) -> None:
        while True:
            await asyncio.sleep(self._policy.heartbeat)
            try:
                if not await work.extend():
                    return
            except Outage as outage:
                # The lease may end meanwhile. Fencing then decides, as for a worker that was paused.
                _log.warning("lease not extended", attempt=work.claim.attempt, reason=str(outage))

    async def _retry_or_fail(self, work: Work, error: ServiceError) -> None:
        if work.claim.attempts_charged >= self._policy.max_attempts:
            await self.fail(work, error)
        else:
            await self._retry_later(work, error)

    async def _retry_later(
        self, work: Work, error: ServiceError, *, charge: bool = True, decoder_failed_in: Lane | None = None
    ) -> None:
        tries = work.claim.attempts_charged if charge else work.claim.attempt
        delay = _growing(self._policy.retry_delay, tries, most=_MAX_RETRY_DELAY)
        release = Release(rest=delay, due_in=delay, charge=charge, decoder_failed_in=decoder_failed_in)
        released = await self._change(lambda: work.release(release))
        event = "attempt failed; another follows" if released else _LOST
        _log.warning(event, attempt=work.claim.attempt, code=error.code, in_seconds=delay)
        self._observer.attempted(work.claim, AttemptOutcome.RETRY if released else AttemptOutcome.LOST, error.code)

    async def _give_back(self, work: Work, *, budget: float | None = None) -> None:
        """Release the claim at once, uncharged, so that the redelivered message can claim the image."""
        self._observer.attempted(work.claim, AttemptOutcome.GIVEN_BACK)
        try:
            await self._change(
                lambda: work.release(Release(rest=0, due_in=self._policy.lease, charge=False)), budget=budget
            )
        except Outage as outage:
            _log.warning("claim not released; its lease will end", attempt=work.claim.attempt, reason=str(outage))

    async def _change(self, change: Callable[[], Awaitable[bool]], *, budget: float | None = None) -> bool:
        """Make a change, retried on outages for half a lease by default."""
        return await retry_on_outage(change, budget=self._policy.lease / 2 if budget is None else budget)


def _growing(first: float, tries: int, *, most: float) -> float:
    """Returns a delay that doubles with each try."""
    return float(min(most, first * 2 ** min(tries - 1, _MAX_DOUBLINGS)))
