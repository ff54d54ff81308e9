"""The queues, as the broker knows them."""

import asyncio
from typing import Any, Final

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from image_service.domain.lane import Lane

_DELIVERY_LIMIT: Final = 20
_DEAD_LETTERS_KEPT: Final = 10_000
_DEAD_LETTERS_DELIVERY_LIMIT: Final = 2**31 - 1
"""Practically none. RabbitMQ 4 drops a message that was given back twenty times, unless told otherwise, and whoever
reads a dead letter gives it back. It takes -1 for "never"; but 3.x takes that, too, and drops the message at once."""
_PASSIVE: Final[dict[str, Any]] = {"passive": True}
"""Declares nothing: it only asks whether the queue is there."""
_CREATION_PAUSE: Final = 0.5
"""Seconds; 0.05 are enough on a machine that has nothing else to do."""

_log = structlog.get_logger(__name__)


class Topology:
    """The queues, one for each lane. Whoever connects declares them, in the same words, so nobody has to come first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead_letters = 0
        """How many there were when the broker was last asked."""

    @property
    def dead_letter_queue(self) -> str:
        """The name of the queue for what cannot be delivered."""
        return f"{self.name}.dead"

    def queue_of(self, lane: Lane) -> str:
        """The name of a lane's queue."""
        return self.name if lane is Lane.NORMAL else f"{self.name}.{lane}"

    async def declare(self, connection: AbstractConnection) -> dict[Lane, int]:
        """Create what is missing, and see that what exists is what it should be; returns the ``depth``.

        Raises:
            ChannelPreconditionFailed: a queue of that name exists with other arguments.
        """
        if not await self._exist(connection, self.dead_letter_queue):  # a broker that is new to us
            limits = {"x-max-length": _DEAD_LETTERS_KEPT, "x-delivery-limit": _DEAD_LETTERS_DELIVERY_LIMIT}
            return await self._declare(connection, dead=_quorum(limits))
        if not await self._exist(connection, *map(self.queue_of, Lane)):
            # Not at once: RabbitMQ 3.10 takes a moment to cancel the consumers of a queue that was deleted. Otherwise
            # it moves them to the new one, and counts messages as delivered to them that it never sends.
            await asyncio.sleep(_CREATION_PAUSE)
        # As it was found: versions of the service that declare it in other words can run side by side.
        return await self._declare(connection, dead=_PASSIVE)

    async def depth(self, connection: AbstractConnection) -> dict[Lane, int]:
        """How many messages are ready in each lane. Queues that are missing are created.

        A round trip on a channel of its own: an error closes the channel, and must not close the caller's.
        """
        try:
            return await self._each(connection, dead=_PASSIVE, lane=_PASSIVE)
        except ChannelNotFoundEntity:
            return await self.declare(connection)

    async def _exist(self, connection: AbstractConnection, *names: str) -> bool:
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                for name in names:
                    await _ready(channel, name, _PASSIVE)
        except ChannelNotFoundEntity:
            return False
        return True

    async def _declare(self, connection: AbstractConnection, *, dead: dict[str, Any]) -> dict[Lane, int]:
        lane = _quorum(
            {
                "x-delivery-limit": _DELIVERY_LIMIT,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.dead_letter_queue,
            }
        )
        return await self._each(connection, dead=dead, lane=lane)

    async def _each(
        self, connection: AbstractConnection, *, dead: dict[str, Any], lane: dict[str, Any]
    ) -> dict[Lane, int]:
        async with connection.channel(publisher_confirms=False) as channel:
            self._watch(await _ready(channel, self.dead_letter_queue, dead))
            return {each: await _ready(channel, self.queue_of(each), lane) for each in Lane}

    def _watch(self, dead_letters: int) -> None:
        if dead_letters > self.dead_letters:
            # No image is lost with them, for the database is the truth; but something put them there.
            _log.error("messages were dead-lettered", queue=self.dead_letter_queue, messages=dead_letters)
        self.dead_letters = dead_letters


def _quorum(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"durable": True, "arguments": {"x-queue-type": "quorum", **arguments}}


async def _ready(channel: AbstractChannel, name: str, how: dict[str, Any]) -> int:
    """Declare a queue; returns how many of its messages nobody holds."""
    queue = await channel.declare_queue(name, **how)
    return queue.declaration_result.message_count or 0
