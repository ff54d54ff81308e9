"""All receivers of events of a run."""

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tests.faults.history import History
from tests.faults.receivers import Answer, BoundQueue, Endpoint, Endpoints, Pages, Stream

Failing: TypeAlias = Mapping[str, tuple[Sequence[str] | None, Sequence[Answer]]]
"""By the name of a webhook endpoint: the types that it wants, and how it fails at times."""
ENDPOINTS: Final[Failing] = {
    "hook-steady": (None, ()),
    "hook-failing": (("image.done", "image.failed"), (Answer.FAILS, Answer.THROTTLES, Answer.DROPS)),
    "hook-hanging": (("image.accepted", "image.output", "image.deleted"), (Answer.HANGS, Answer.IS_SLOW)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverNames:
    """Who receives events, by name."""

    streams: Collection[str] = ("stream-1", "stream-2")
    pages: Collection[str] = ("pages",)
    endpoints: Failing = field(default_factory=lambda: ENDPOINTS)
    queues: Collection[str] = ("bound-queue",)
    """Where there is a broker."""


class ReceiverSet:
    """Streams, pages, webhook endpoints and a bound queue.

    Args:
        seed: Of the random choices.
        history: Where they record what they get.
        urls: Of the API processes.
        broker: The URL of the broker; None: there is none.
        members: Who receives.
    """

    def __init__(
        self,
        seed: int,
        history: History,
        urls: Mapping[str, str],
        broker: str | None,
        members: ReceiverNames | None = None,
    ) -> None:
        chosen = members or ReceiverNames()
        self._rng = random.Random(f"{seed}-receivers")
        self.readers = [
            *(Stream(name, history, urls, random.Random(f"{seed}-{name}")) for name in chosen.streams),
            *(Pages(name, history, urls, random.Random(f"{seed}-{name}")) for name in chosen.pages),
        ]
        self.endpoints = Endpoints(history)
        self._failing = chosen.endpoints
        self._queues = [BoundQueue(name, history, broker) for name in chosen.queues if broker is not None]

    async def begin(self, api: str) -> list[str]:
        """Begin to receive; return the ids of the endpoints. Every later event is to reach every receiver.

        Args:
            api: The URL of an API process.
        """
        for each in (*self._queues, *self.readers):
            each.start()
        await asyncio.gather(*(each.begun.wait() for each in (*self._queues, *self.readers)))
        await self.endpoints.listen()
        self.endpoints.start()
        ids: list[str] = []
        for name, (types, failures) in self._failing.items():
            endpoint = Endpoint(name, random.Random(self._rng.random()), failures)
            ids.append(await self.endpoints.register(api, endpoint, types))
        return ids

    def recover(self) -> None:
        """Let all endpoints accept everything from now on."""
        self.endpoints.recover()

    async def close(self) -> None:
        """Stop receiving."""
        await asyncio.gather(*(each.close() for each in (*self.readers, self.endpoints, *self._queues)))
