"""The exchange for other services on RabbitMQ: a durable topic exchange that they bind their queues to."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from aio_pika import DeliveryMode, ExchangeType, Message

from image_service.errors import QueueUnavailable
from image_service.ports import PUBLISH_LIMIT, EncodedEvent
from image_service.queue.rabbitmq.connection import BrokerConnection, Session, reason_of
from image_service.queue.rabbitmq.timeouts import now, within


class RabbitMQExchange:
    """``ports.EventExchange`` on a RabbitMQ broker.

    The broker drops events that no queue is bound for.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host. A wrong one is retried and logged.
        name: The exchange's.
        publish_limit: Maximum seconds for one call of ``publish``.
    """

    def __init__(self, url: str, name: str, *, publish_limit: float = PUBLISH_LIMIT) -> None:
        self._name = name
        self._publish_limit = publish_limit
        self._connection = BrokerConnection(url, f"image-service exchange {name}", self._set_up)
        self._connecting: asyncio.Task[NoReturn] | None = None

    async def start(self) -> None:
        """Begin connecting, and declare the exchange as soon as the broker answers; returns at once."""
        self._connecting = asyncio.create_task(self._connection.keep_open())

    async def close(self) -> None:
        """Disconnect, within three seconds."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})

    async def publish(self, events: Sequence[EncodedEvent]) -> None:
        """Publish events; see ``ports.EventExchange``.

        Raises:
            QueueUnavailable: not connected, blocked, refused, or not confirmed in time.
        """
        deadline = now() + self._publish_limit
        session = await self._connection.usable(deadline)
        try:
            await within(deadline - now(), self._send(session, events))
        except TimeoutError:
            # What this connection has not sent yet must not be sent later.
            session.lost.set()
            raise QueueUnavailable("The broker did not confirm the events in time.") from None
        except Exception as error:
            # aio-pika raises a dozen unrelated classes here, which mean the same to the caller.
            raise QueueUnavailable("The broker did not take the events.", cause=reason_of(error)) from error

    async def _send(self, session: Session, events: Sequence[EncodedEvent]) -> None:
        exchange = await session.channel.get_exchange(self._name, ensure=False)

        async def send(event: EncodedEvent) -> None:
            message = Message(
                event.body,
                content_type=event.content_type,
                delivery_mode=DeliveryMode.PERSISTENT,
                message_id=event.id,
            )
            await exchange.publish(message, event.topic, mandatory=False)

        for turn in _turns(events):
            # The channel sends in the order of the calls, without waiting for confirms.
            results = await asyncio.gather(*map(send, turn), return_exceptions=True)
            for result in results:
                if result is not None:
                    raise result

    async def _set_up(self, session: Session) -> None:
        await session.open(publisher_confirms=True)
        # On a channel of its own, which a refusal closes.
        async with session.connection.channel(publisher_confirms=False) as channel:
            await channel.declare_exchange(self._name, ExchangeType.TOPIC, durable=True)


def _turns(events: Sequence[EncodedEvent]) -> list[list[EncodedEvent]]:
    """Returns the first event of each subject, then the second ones, and so on.

    Those of one turn are on their way at the same time: the broker may take a later one and refuse an earlier one, for
    example because a queue is full, which must not be one about the same image.
    """
    turns: list[list[EncodedEvent]] = []
    had: Counter[str] = Counter()
    for event in events:
        turn = had[event.subject]
        if turn == len(turns):
            turns.append([])
        turns[turn].append(event)
        had[event.subject] += 1
    return turns
