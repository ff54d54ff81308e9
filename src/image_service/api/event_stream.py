"""Server-Sent Events (the HTML standard, section 9.2): a response that goes on with events as they happen.

Not ``fastapi.sse``: its responses begin before anything is read, so that no request could be refused with a status any
more, and each stream takes it three tasks and two queues.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final
from uuid import UUID

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from image_service.api.stream_places import StreamPlaces
from image_service.api.waiting import WAITED
from image_service.documents.event import encode_event
from image_service.documents.urls import Urls
from image_service.domain.event import Event, EventType, Position
from image_service.domain.recipe import Recipes
from image_service.errors import EventsExpired, Outage
from image_service.services.event_feed import EventFeed, SubscriptionOverflow
from image_service.services.event_log import EventLog

MEDIA_TYPE: Final = "text/event-stream"

_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store, no-transform",  # who compresses collects: events would arrive late
    "X-Accel-Buffering": "no",  # nginx passes each event on at once
    "Incremental": "?1",  # the same for proxies that know RFC 10036
    "Vary": "Accept",
}
_PAGE: Final = 16
"""Events that a stream holds while it replays: bounds the memory of a client that takes them slowly."""
_RETRY: Final = (1000, 3000)
"""Milliseconds until a client connects again; each gets its own, so that not all come at once after a restart."""
_HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies close silent connections, and dead ones are noticed."""
_WRITE_TIMEOUT: Final = 30.0
"""Seconds in which a client must make room for the next event; then its stream ends."""
_KEPT_DOCUMENTS: Final = 256
"""Documents that are kept for other streams: some 1 MB."""
_COMMENT: Final = b":\n\n"

_random: Final = SystemRandom()
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The events that a client wants."""

    image_id: UUID | None = None
    """Only those of this image."""
    types: Collection[EventType] | None = None
    """Only those of these types."""


class EventDocuments:
    """Encodes events; those that many streams send at the same time once for all with the same address.

    Args:
        recipes: The recipes that this process knows.
    """

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes
        self._encoded: dict[tuple[str, str], bytes] = {}
        """By the event's id and the base of the URLs; the oldest first."""

    def encode(self, event: Event, urls: Urls) -> bytes:
        """Returns the document of an event as JSON."""
        key = (event.id, urls.base)
        encoded = self._encoded.get(key)
        if encoded is None:
            encoded = self._encoded[key] = encode_event(event, urls, self._recipes)
            if len(self._encoded) > _KEPT_DOCUMENTS:
                del self._encoded[next(iter(self._encoded))]
        return encoded


class EventSource:
    """Gives the events of one choice: those that are recorded, and then each as it happens.

    Args:
        feed: Has events as they happen.
        log: Has the recorded ones.
        choice: Which are wanted.
        encode: Returns the document of an event as JSON.
        heartbeat: See ``_HEARTBEAT``.
    """

    def __init__(
        self,
        *,
        feed: EventFeed,
        log: EventLog,
        choice: Choice,
        encode: Callable[[Event], bytes],
        heartbeat: float = _HEARTBEAT,
    ) -> None:
        self._feed = feed
        self._log = log
        self._choice = choice
        self._encode = encode
        self._heartbeat = heartbeat

    async def blocks(self, after: Position | None, *, missed: bool) -> AsyncGenerator[bytes]:
        """Yields the blocks of an event stream, without end.

        A client that falls behind gets the events from the log again, at its own pace.

        Args:
            after: Where in the log to begin; None: with the next event that happens.
            missed: Whether the client has asked for events that are not there any more.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        choice = self._choice
        position, begun = after, False
        while True:
            async with self._feed.subscribe(image_id=choice.image_id, types=choice.types) as live:
                if not begun:
                    yield await self._beginning(after, live.position, missed=missed)
                    begun = True
                if position is None:
                    position = live.position
                async for event in self._recorded(position, live.position):
                    yield self._block(event)
                    position = event.position
                if position < live.position:
                    # Without data it is no event for the client, but it resumes from here, not from an old event.
                    position = live.position
                    yield b"id: %b\n\n" % await self._id(position)
                with suppress(SubscriptionOverflow):
                    while True:
                        happened = await live.next(self._heartbeat)
                        if happened is None:
                            yield _COMMENT
                        elif happened.position > position:  # a client that comes from another replica may be ahead
                            yield self._block(happened)
                            position = happened.position

    async def _beginning(self, after: Position | None, now: Position, *, missed: bool) -> bytes:
        retry = b"retry: %d\n" % _random.randint(*_RETRY)
        if after is not None and not missed:
            return retry + b"\n"
        place = await self._id(now if after is None else after)
        lines = retry + b"id: %b\n" % place
        if missed:
            error = EventsExpired()
            data = {"code": error.code, "detail": error.detail, "after": place.decode()}
            lines += b"event: reset\ndata: %b\n" % json.dumps(data).encode()
        return lines + b"\n"

    async def _recorded(self, position: Position, until: Position) -> AsyncIterator[Event]:
        while position < until:
            page = await self._log.page(
                position, limit=_PAGE, image_id=self._choice.image_id, types=self._choice.types, until=until
            )
            for event in page:
                yield event
            if not page:
                return
            position = page[-1].position

    async def _id(self, position: Position) -> bytes:
        return (await self._log.id_of(position)).encode()

    def _block(self, event: Event) -> bytes:
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), self._encode(event))


class EventStream(Response):
    """The response: it goes on until the client goes or is too slow, or the stream's place is given up.

    Args:
        blocks: What is sent. Errors before the first block are answered as usual.
        places: Where the stream takes its place.
        client: The client's address.
        write_timeout: See ``_WRITE_TIMEOUT``.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        blocks: AsyncGenerator[bytes],
        places: StreamPlaces,
        client: str,
        write_timeout: float = _WRITE_TIMEOUT,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._blocks = blocks
        self._places = places
        self._client = client
        self._write_timeout = write_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream.

        Raises:
            TooManyEventStreams: all places are in use.
            DatabaseUnavailable: the database cannot be reached.
        """
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        async with aclosing(self._blocks):
            if scope["method"] == "HEAD":
                await send(start)
            else:
                with self._places.place(self._client) as place:
                    first = await anext(self._blocks)
                    await send(start)
                    began = time.perf_counter()
                    gone = asyncio.create_task(_when_gone(receive, place.end))
                    try:
                        await place.run(self._send(first, send))
                    finally:
                        gone.cancel()
                        scope["state"][WAITED] = time.perf_counter() - began
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, first: bytes, send: Send) -> None:
        await send(_body(first))
        try:
            async for block in self._blocks:
                async with asyncio.timeout(self._write_timeout):
                    await send(_body(block))
                    await asyncio.sleep(0)  # sending waits for nothing once the client is gone, which others notice
        except TimeoutError:
            _log.info("event stream ended: its client takes no more", client=self._client)
        except Outage as error:
            _log.info("event stream ended: dependency unavailable", code=error.code, detail=error.detail)


def _body(block: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": block, "more_body": True}


async def _when_gone(receive: Receive, act: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    act()
