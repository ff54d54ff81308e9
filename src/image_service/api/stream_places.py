"""Limits how many event streams are open at the same time, and for how long; ends them all when the process stops.

When all places are in use, a network that holds more than half of them gives the one of its newest stream to a network
that holds less, as with uploads. The client resumes the stream after its last event, in this process or another.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import Final

from image_service.api.networks import network_of
from image_service.errors import TooManyEventStreams

_LIFE: Final = 3600.0
"""The most seconds that a stream lives, so that streams spread over all replicas again."""
_LEAST_LIFE: Final = 0.75
"""The least part of that: streams that began at the same time do not end at the same time."""

_random: Final = SystemRandom()


class Place:
    """The place of one stream.

    Args:
        network: Where its client is; see ``network_of``.
        life: Seconds that it lives.
    """

    def __init__(self, network: str, life: float) -> None:
        self.network = network
        self._life = life
        self._ended = False
        self._limit: asyncio.Timeout | None = None

    async def run(self, work: Coroutine[object, object, None]) -> None:
        """Do a work until it is done, the stream's life is over, or it is ended."""
        limit = self._limit = asyncio.timeout(0 if self._ended else self._life)
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limit = None

    def end(self) -> None:
        """End the stream, whatever it waits for."""
        self._ended = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


class StreamPlaces:
    """The places of the streams of one process.

    Args:
        limit: Their number.
        stopping: Ends all streams when it is set, and later ones at once.
        life: The most seconds that a stream lives.
    """

    def __init__(self, limit: int, stopping: asyncio.Event, *, life: float = _LIFE) -> None:
        self._limit = limit
        self._stopping = stopping
        self._life = life
        self._open: dict[Place, None] = {}
        """The oldest first."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def in_use(self) -> int:
        """How many places are in use."""
        return len(self._open)

    @contextmanager
    def place(self, client: str) -> Iterator[Place]:
        """Gives a stream a place for the duration of the block.

        Args:
            client: The client's address.

        Raises:
            TooManyEventStreams: all places are in use, and none is given up for this client.
        """
        network = network_of(client)
        if len(self._open) >= self._limit:
            self._displace_for(network)
        place = Place(network, self._life * _random.uniform(_LEAST_LIFE, 1))
        self._open[place] = None
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_all_when_stopping())
        if self._stopping.is_set():
            place.end()
        try:
            yield place
        finally:
            self._open.pop(place, None)
            if not self._open:
                self._watch.cancel()
                self._watch = None

    def _displace_for(self, network: str) -> None:
        held = Counter(place.network for place in self._open)
        share = max(1, self._limit // 2)
        beyond = [place for place in self._open if held[place.network] > share]
        if held[network] >= share or not beyond:
            raise TooManyEventStreams
        del self._open[beyond[-1]]
        beyond[-1].end()

    async def _end_all_when_stopping(self) -> None:
        await self._stopping.wait()
        for place in tuple(self._open):
            place.end()
