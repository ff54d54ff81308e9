"""The queues, as the broker knows them."""

from typing import Any, Final

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection

from image_service.domain.lane import Lane

_DELIVERY_LIMIT: Final = 20
_DEAD_LETTERS_KEPT: Final = 10_000

_log = structlog.get_logger(__name__)


class Topology:
    """The queues, one for each lane. Whoever connects declares them, in the same words, so nobody has to come first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._dead_letters = 0

    def queue_of(self, lane: Lane) -> str:
        """The name of a lane's queue."""
        return self.name if lane is Lane.NORMAL else f"{self.name}.{lane}"

    async def declare(self, channel: AbstractChannel) -> int:
        """Create what is missing; returns how many messages are ready in all lanes.

        Declaring what exists changes nothing, so this also serves as the round trip of a probe.
        """
        dead = await self._queue(channel, f"{self.name}.dead", {"x-max-length": _DEAD_LETTERS_KEPT})
        if dead > self._dead_letters:
            # No image is lost with them, for the database is the truth; but something put them there.
            _log.error("messages were dead-lettered", queue=f"{self.name}.dead", messages=dead)
        self._dead_letters = dead
        arguments = {
            "x-delivery-limit": _DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{self.name}.dead",
        }
        return sum([await self._queue(channel, self.queue_of(lane), arguments) for lane in Lane])

    async def declare_on(self, connection: AbstractConnection) -> int:
        """The same on a channel of its own: an error closes the channel, and must not close the publisher's."""
        async with connection.channel(publisher_confirms=False) as channel:
            return await self.declare(channel)

    async def _queue(self, channel: AbstractChannel, name: str, arguments: dict[str, Any]) -> int:
        quorum = {"x-queue-type": "quorum", **arguments}
        queue = await channel.declare_queue(name, durable=True, arguments=quorum)
        return queue.declaration_result.message_count or 0
