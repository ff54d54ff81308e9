"""Requests that wait for an image to end (``Prefer: wait``)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from fastapi import Request

from image_service.api.prefer import HEADER, wait_of
from image_service.domain.event import ENDS, EventType
from image_service.domain.image import Image
from image_service.errors import ImageNotFound, Outage
from image_service.services.event_feed import EventFeed, Subscription, SubscriptionOverflow
from image_service.services.lookup import Lookup

WAITED: Final = "waited"
"""Where a request notes, in the scope's state, the seconds that it has waited because its client wants it to."""
_BUFFER: Final = 8
"""Events of one image, of which an upload misses none while it is committed."""


class Waiting:
    """All requests of this process that wait.

    Args:
        feed: Has the events that end the wait.
        lookup: Reads an image when its wait was too short.
        max_wait: Seconds that a request waits at most; 0: none waits.
        max_waiting: Requests that wait at the same time; further ones are answered at once.
        stopping: Ends every wait when it is set.
    """

    def __init__(
        self, *, feed: EventFeed, lookup: Lookup, max_wait: float, max_waiting: int, stopping: asyncio.Event
    ) -> None:
        self._feed = feed
        self._lookup = lookup
        self._max_wait = max_wait
        self._max_waiting = max_waiting
        self._stopping = stopping
        self.number = 0
        """How many requests wait."""

    @asynccontextmanager
    async def of(self, request: Request, image_id: UUID) -> AsyncIterator["Wait | None"]:
        """Provide the wait that a request asks for, which takes account of what happens to the image from now on.

        None: it asks for none, or cannot have it now: too many requests wait, or no events can be read.
        """
        asked = wait_of(request.headers.getlist(HEADER))
        if asked is None or not self._max_wait or self.number >= self._max_waiting or self._stopping.is_set():
            yield None
            return
        self.number += 1
        try:
            async with AsyncExitStack() as stack:
                wait = None
                with suppress(Outage):
                    subscription = self._feed.subscribe(image_id=image_id, types=ENDS, buffer=_BUFFER)
                    wait = Wait(
                        request,
                        image_id,
                        await stack.enter_async_context(subscription),
                        seconds=min(asked, self._max_wait),
                        stopping=self._stopping,
                        lookup=self._lookup,
                    )
                yield wait
        finally:
            self.number -= 1


class Wait:
    """The wait of one request for one image."""

    def __init__(
        self,
        request: Request,
        image_id: UUID,
        subscription: Subscription,
        *,
        seconds: float,
        stopping: asyncio.Event,
        lookup: Lookup,
    ) -> None:
        self._request = request
        self._image_id = image_id
        self._subscription = subscription
        self._seconds = seconds
        self._stopping = stopping
        self._lookup = lookup

    @property
    def applied(self) -> str:
        """The preference that was applied, for the response."""
        return f"wait={int(self._seconds)}"

    async def ended(self) -> Image | None:
        """Wait for the image, whatever its state is now; see ``ended_after``. None as well if it cannot be read.

        Raises:
            ImageNotFound: it is deleted.
        """
        with suppress(Outage):
            return await self.ended_after(await self._lookup.image(self._image_id))
        return None

    async def ended_after(self, image: Image | None) -> Image | None:
        """Wait until the image is DONE or in ERROR; returns it, or None if it is not within the time.

        Args:
            image: As it was read during this wait; None: it was made during it.

        Raises:
            ImageNotFound: it was deleted.
        """
        if image is not None and image.status.terminal:
            return image
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = asyncio.create_task(self._end(None if image is None else image.finished_at))
        interruptions = {asyncio.create_task(self._stopping.wait()), asyncio.create_task(disconnected(self._request))}
        tasks = {end, *interruptions}
        try:
            await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                return end.result()
            if any(each.done() for each in interruptions):
                return None
        except SubscriptionOverflow:
            pass
        finally:
            self._request.scope["state"][WAITED] = loop.time() - began
            for task in tasks:
                task.cancel()
        return await self._read()

    async def _end(self, finished_at: datetime | None) -> Image:
        """Return the image once it ends."""
        while True:
            event = await self._subscription.next(None)
            if event is None or event.type is EventType.DELETED:
                raise ImageNotFound
            # The event may be older than the image that was read, which is then being reprocessed.
            if event.image is not None and event.image.finished_at != finished_at:
                return event.image

    async def _read(self) -> Image | None:
        """Read the image at the end of the time: a worker of a version before events may have processed it."""
        with suppress(Outage):
            image = await self._lookup.image(self._image_id)
            return image if image.status.terminal else None
        return None


async def disconnected(request: Request) -> None:
    """Return when the client has closed the connection. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
