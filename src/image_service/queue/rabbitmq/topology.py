"""Declares the queues on the broker."""

import asyncio
from typing import Any, Final

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from image_service.domain.lane import Lane

_DELIVERY_LIMIT: Final = 20
_MAX_DEAD_LETTERS: Final = 10_000
_DEAD_LETTERS_DELIVERY_LIMIT: Final = 2**31 - 1
"""Practically none. RabbitMQ 4 drops a message that was requeued 20 times unless a limit is set, and reading a dead
letter requeues it. RabbitMQ 4 takes -1 for "no limit"; but 3.x accepts that, too, and drops the message at once."""
_PASSIVE: Final[dict[str, Any]] = {"passive": True}
"""Declares nothing: only checks that the queue exists."""
_CREATION_PAUSE: Final = 0.5
"""Seconds; 0.05 are enough on an idle machine."""

_log = structlog.get_logger(__name__)


class Topology:
    """The queues of the lanes, and the dead-letter queue. Every process declares them, with the same arguments."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead_letters = 0
        """Number of dead letters at the last check."""

    @property
    def dead_letter_queue(self) -> str:
        """The name of the dead-letter queue."""
        return f"{self.name}.dead"

    def queue_of(self, lane: Lane) -> str:
        """Returns the name of a lane's queue."""
        return self.name if lane is Lane.NORMAL else f"{self.name}.{lane}"

    async def declare(self, connection: AbstractConnection) -> dict[Lane, int]:
        """Create missing queues, and check the arguments of existing ones; returns the ``depth``.

        Raises:
            ChannelPreconditionFailed: a queue of that name exists with other arguments.
        """
        if not await self._exist(connection, self.dead_letter_queue):  # the service has never used this broker
            limits = {"x-max-length": _MAX_DEAD_LETTERS, "x-delivery-limit": _DEAD_LETTERS_DELIVERY_LIMIT}
            return await self._declare(connection, dead=_quorum(limits))
        if not await self._exist(connection, *map(self.queue_of, Lane)):
            # Not at once: RabbitMQ 3.10 takes a moment to cancel the consumers of a queue that was deleted. Otherwise
            # it moves them to the new one, and counts messages as delivered to them that it never sends.
            await asyncio.sleep(_CREATION_PAUSE)
        # Passive: versions of the service that declare it with other arguments can run side by side.
        return await self._declare(connection, dead=_PASSIVE)

    async def depth(self, connection: AbstractConnection) -> dict[Lane, int]:
        """Returns the number of ready messages in each lane. Missing queues are created.

        A round trip on a channel of its own: an error closes the channel, and must not close the caller's.
        """
        try:
            return await self._declare_all(connection, dead=_PASSIVE, lane=_PASSIVE)
        except ChannelNotFoundEntity:
            return await self.declare(connection)

    async def _exist(self, connection: AbstractConnection, *names: str) -> bool:
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                for name in names:
                    await _declare_queue(channel, name, _PASSIVE)
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
        return await self._declare_all(connection, dead=dead, lane=lane)

    async def _declare_all(
        self, connection: AbstractConnection, *, dead: dict[str, Any], lane: dict[str, Any]
    ) -> dict[Lane, int]:
        async with connection.channel(publisher_confirms=False) as channel:
            self._note_dead_letters(await _declare_queue(channel, self.dead_letter_queue, dead))
            return {each: await _declare_queue(channel, self.queue_of(each), lane) for each in Lane}

    def _note_dead_letters(self, number: int) -> None:
        if number > self.dead_letters:
            # No image is lost with them, as the database is authoritative; but there is a cause to be found.
            _log.error("messages were dead-lettered", queue=self.dead_letter_queue, messages=number)
        self.dead_letters = number


def _quorum(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"durable": True, "arguments": {"x-queue-type": "quorum", **arguments}}


async def _declare_queue(channel: AbstractChannel, name: str, options: dict[str, Any]) -> int:
    """Declare a queue; returns the number of its ready messages."""
    queue = await channel.declare_queue(name, **options)
    return queue.declaration_result.message_count or 0
