"""The exchange for other services: events for it, and queues that are bound to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from harness.broker import RECOVERY, channel_to
from harness.waiting import eventually
from image_service.errors import QueueUnavailable
from image_service.ports import EncodedEvent
from image_service.queue.rabbitmq import RabbitMQExchange


def encoded(subject: str, number: int = 0, topic: str = "image.done") -> EncodedEvent:
    return EncodedEvent(
        id=f"evt_{subject}_{number}",
        topic=topic,
        subject=subject,
        content_type="application/cloudevents+json",
        body=b'{"number":%d}' % number,
    )


@asynccontextmanager
async def started_exchange(url: str, name: str, publish_limit: float = 5.0) -> AsyncIterator[RabbitMQExchange]:
    """An exchange whose broker takes events: connecting takes long on a busy machine."""
    exchange = RabbitMQExchange(url, name, publish_limit=publish_limit)
    await exchange.start()
    try:
        await publish_once_it_works(exchange, [])
        yield exchange
    finally:
        await exchange.close()


async def publish_once_it_works(exchange: RabbitMQExchange, events: Sequence[EncodedEvent]) -> None:
    async def published() -> bool:
        with suppress(QueueUnavailable):
            await exchange.publish(events)
            return True
        return False

    await eventually(published, timeout=RECOVERY)


async def bind(url: str, exchange: str, queue: str, topic: str = "#", **arguments: Any) -> None:  # noqa: ANN401  (any argument of a queue)
    """Bind a durable queue to an exchange that exists."""
    async with channel_to(url) as channel:
        bound = await channel.declare_queue(queue, durable=True, arguments=arguments)
        await bound.bind(exchange, topic)


async def messages(url: str, queue: str, number: int) -> list[AbstractIncomingMessage]:
    """Take so many messages from a queue, in order, once they are there."""
    found: list[AbstractIncomingMessage] = []

    async with channel_to(url) as channel:
        bound = await channel.get_queue(queue)

        async def taken() -> bool:
            if (message := await bound.get(no_ack=True, fail=False)) is not None:
                found.append(message)
            return len(found) == number

        await eventually(taken, timeout=RECOVERY, interval=0)
    return found
