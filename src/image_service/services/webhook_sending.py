"""Sends events to webhook endpoints.

Each endpoint has its own room in a process, so that none that is slow or dead delays another. An event is sent at least
once: an attempt whose process dies, or ends before the answer, is repeated when its lease ends.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain import delivery_schedule as schedule
from image_service.domain.delivery_schedule import Meaning
from image_service.domain.event import Event
from image_service.domain.webhook_delivery import (
    ClaimedDelivery,
    DeliveryAttempt,
    DeliveryResult,
    DeliveryStatus,
    readable,
)
from image_service.domain.webhook_signature import signature_headers
from image_service.errors import Outage
from image_service.ports import Answer, Observer, Outbound, OutboundFailed
from image_service.services.outage_retry import retry_on_outage

IN_FLIGHT: Final = 4
"""Deliveries that a process sends to one endpoint at once; to one that is failing, it is one."""
_LEASE_MARGIN: Final = 20.0
"""Seconds by which a lease is longer than an endpoint has to answer: for the body of the answer, and to record it."""
_RECORDING: Final = 12.0
"""Seconds for which recording an attempt is repeated while the database is unavailable."""
_RECORDED_AT_ONCE: Final = 4
"""Attempts that a process records at once: all that end in a moment would take every connection to the database."""
_DEFECT: Final = "internal-error"

_log = structlog.get_logger(__name__)


class WebhookSender:
    """Makes deliveries. Safe to run in all workers at once: each delivery is claimed by one of them.

    Args:
        database: Where deliveries are recorded.
        outbound: Sends requests.
        encode: Returns an event's document as JSON, the same for every endpoint and attempt.
        timeout: Seconds in which an endpoint must answer.
        observer: Notified of every attempt.
    """

    def __init__(
        self,
        *,
        database: Database,
        outbound: Outbound,
        encode: Callable[[Event], bytes],
        timeout: float,
        observer: Observer,
    ) -> None:
        self._database = database
        self._outbound = outbound
        self._encode = encode
        self._timeout = timeout
        self._observer = observer
        self._recording = asyncio.Semaphore(_RECORDED_AT_ONCE)
        self._sending: dict[asyncio.Task[None], UUID] = {}
        self.on_room: Callable[[], None] = lambda: None
        """Called after each attempt, when there is room for another one."""

    @property
    def sending(self) -> int:
        """How many deliveries are being sent."""
        return len(self._sending)

    async def start_due(self) -> int:
        """Start to send what is due, as far as there is room; returns how many deliveries that is.

        Raises:
            DatabaseUnavailable: what was claimed all the same is sent when its lease ends.
        """
        async with self._database.transaction() as repositories:
            claims = await repositories.deliveries.claim(
                Counter(self._sending.values()), each=IN_FLIGHT, lease=self._timeout + _LEASE_MARGIN
            )
        for claim in claims:
            task = asyncio.create_task(self._send(claim))
            self._sending[task] = claim.webhook.id
            task.add_done_callback(self._ended)
        return len(claims)

    async def end(self, grace: float) -> None:
        """Give running attempts a moment to end, and cancel the others: they are repeated when their leases end."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=grace)
        running = list(self._sending)
        for task in running:
            task.cancel()
        if running:
            _log.info("webhooks: attempts interrupted", attempts=len(running))
            await asyncio.wait(running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        self.on_room()

    async def _send(self, claim: ClaimedDelivery) -> None:
        log = _log.bind(webhook_id=str(claim.webhook.id), event_id=claim.event.id)
        began = time.monotonic()
        try:
            attempt, result = await self._attempt(claim)
        except Exception:
            log.exception("webhook not sent: a defect")
            attempt, result = DeliveryAttempt(milliseconds=0, error=_DEFECT), _retry(claim, None)
        seconds = time.monotonic() - began
        try:
            await retry_on_outage(lambda: self._record(claim, attempt, result), budget=_RECORDING)
        except Outage:
            log.warning("webhook's attempt not recorded; it will be repeated")
        except Exception:
            log.exception("webhook's attempt not recorded: a defect")
        self._observer.webhook_attempted(result.status.value, attempt.status, seconds)

    async def _attempt(self, claim: ClaimedDelivery) -> tuple[DeliveryAttempt, DeliveryResult]:
        body = self._encode(claim.event)
        headers = {
            "content-type": "application/json",
            **signature_headers(claim.webhook.secrets, event_id=claim.event.id, sent_at=int(time.time()), body=body),
        }
        began = time.monotonic()
        try:
            answer = await self._outbound.post(claim.webhook.url, headers=headers, body=body, timeout=self._timeout)
        except OutboundFailed as failed:
            return DeliveryAttempt(milliseconds=_since(began), error=failed.reason), _retry(claim, None)
        attempt = DeliveryAttempt(milliseconds=_since(began), status=answer.status, answer=readable(answer.body))
        return attempt, _result(claim, answer)

    async def _record(self, claim: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult) -> None:
        if result.status is DeliveryStatus.DELIVERED:
            async with self._recording, self._database.statement() as statements:
                await statements.deliveries.complete(claim, attempt)
            return
        async with self._recording, self._database.transaction() as repositories:
            finished = await repositories.deliveries.finish(claim, attempt, result)
        if finished.disabled is not None:
            _log.warning("webhook endpoint disabled", webhook_id=str(claim.webhook.id), reason=finished.disabled)


def _result(claim: ClaimedDelivery, answer: Answer) -> DeliveryResult:
    retry_after = schedule.retry_after_of(answer.headers.get("retry-after"), datetime.now(UTC))
    meaning = schedule.meaning_of(answer.status, retry_after)
    if meaning is Meaning.TAKEN:
        return DeliveryResult(status=DeliveryStatus.DELIVERED)
    if meaning is Meaning.GONE:
        return DeliveryResult(status=DeliveryStatus.FAILED, gone=True)
    return _retry(claim, retry_after, busy=meaning is Meaning.BUSY)


def _retry(claim: ClaimedDelivery, retry_after: float | None, *, busy: bool = False) -> DeliveryResult:
    jitter = random.random()  # noqa: S311 — not cryptography
    delay = schedule.retry_in(claim.tries + 1, retry_after=retry_after, jitter=jitter)
    pause = schedule.pause_of(delay or 0.0, retry_after) if busy else None
    status = DeliveryStatus.FAILED if delay is None else DeliveryStatus.PENDING
    return DeliveryResult(status=status, retry_in=delay, pause=pause)


def _since(began: float) -> int:
    return round(1000 * (time.monotonic() - began))
