"""When a worker creates and makes deliveries: on the signal that events are recorded, and from time to time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from image_service.errors import Outage
from image_service.ports import EventSignal, Observer
from image_service.services.webhook_dispatch import WebhookDispatcher
from image_service.services.webhook_sending import WebhookSender

_POLL: Final = 1.0
"""Seconds after which a worker looks for work without a signal."""
_IDLE_POLL: Final = 2.0
"""The same while there is no endpoint. Signals are not listened to then: each would cost as much as a small query."""
_PAUSE: Final = 0.02
"""Seconds between two rounds at least: the signals of a moment are one."""
_FAILED_PAUSE: Final = 1.0
"""The same after a round that failed."""
NAME: Final = "webhooks"
"""The name of this job in logs and metrics."""

_log = structlog.get_logger(__name__)


class WebhookLoop:
    """Creates and makes deliveries until it is asked to stop.

    Args:
        dispatcher: Creates deliveries.
        sender: Makes them.
        signal: Tells that events have been recorded.
        observer: Notified of every round.
        poll: See ``_POLL``.
        idle_poll: See ``_IDLE_POLL``.
    """

    def __init__(
        self,
        *,
        dispatcher: WebhookDispatcher,
        sender: WebhookSender,
        signal: EventSignal,
        observer: Observer,
        poll: float = _POLL,
        idle_poll: float = _IDLE_POLL,
    ) -> None:
        self._dispatcher = dispatcher
        self._sender = sender
        self._signal = signal
        self._observer = observer
        self._poll = poll
        self._idle_poll = idle_poll
        self._stop_listening: Callable[[], None] | None = None

    async def run(self, requested: Callable[[], Awaitable[object]], *, grace: float) -> None:
        """Work until ``requested`` returns; then give running attempts their grace, and return.

        An outage of the database costs the round. Cancelling ends all attempts at once.
        """
        wake = asyncio.Event()
        stop = asyncio.ensure_future(requested())
        stop.add_done_callback(lambda _: wake.set())
        self._sender.on_room = wake.set
        try:
            while not stop.done():
                wake.clear()
                pause, poll = await self._round(wake.set)
                await asyncio.wait({stop}, timeout=pause)
                await _wait(wake, poll)
            await self._sender.end(grace)
        finally:
            self._listen(None)
            stop.cancel()
            await self._sender.end(0)

    async def _round(self, wake: Callable[[], None]) -> tuple[float, float]:
        """Returns the seconds until the next round: at least, and without a signal."""
        try:
            work = await self._dispatcher.run_once()
            if work.due:
                await self._sender.start_due()
        except Outage:
            pass  # the database's own log line tells of it
        except Exception:  # noqa: BLE001 — the next round may succeed
            _log.exception("periodic job failed", job=NAME)
        else:
            self._listen(wake if work.registered else None)
            self._observer.job_ended(NAME, succeeded=True)
            return _PAUSE, self._poll if work.registered else self._idle_poll
        self._observer.job_ended(NAME, succeeded=False)
        return _FAILED_PAUSE, self._poll

    def _listen(self, listener: Callable[[], None] | None) -> None:
        """Listen to the signal; None: listen no more."""
        if listener is None and self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        elif listener is not None and self._stop_listening is None:
            self._stop_listening = self._signal.listen(listener)


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
