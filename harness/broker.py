"""The RabbitMQ adapter in use, and direct access to its broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

from aio_pika import connect
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from harness.waiting import eventually, wait_for
from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import Delivery, Drain, TaskQueue
from image_service.queue.rabbitmq import RabbitMQQueue

RECOVERY = 30.0
CONNECT_LIMIT = 30.0
QUEUES = ("images", "images.express", "images.backfill", "images.dead")
"""The queues of a service with default settings."""


async def start(queue: TaskQueue) -> None:
    """Start a queue and wait until the broker answers: connecting takes long on a busy machine."""

    async def connected() -> bool:
        with suppress(QueueUnavailable):
            await queue.depth()
            return True
        return False

    await queue.start()
    await eventually(connected, timeout=CONNECT_LIMIT)


@asynccontextmanager
async def started(url: str, name: str) -> AsyncIterator[RabbitMQQueue]:
    """A queue that has tried to connect. Its methods wait only a second for that, which is short on a busy machine."""
    queue = RabbitMQQueue(url, queue_name=name, requeue_delay=0.05)
    await queue.start()
    try:
        await wait_for(queue._connection.tried.wait(), timeout=30)  # noqa: SLF001  (nothing public tells)
        yield queue
    finally:
        await queue.close()


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[AbstractChannel]:
    """Open a channel without the adapter."""
    async with await connect(url) as connection, connection.channel() as channel:
        yield channel


async def purge_queues(url: str) -> None:
    """Remove all messages of a service with default settings."""
    async with await connect(url, timeout=CONNECT_LIMIT) as connection:
        for name in QUEUES:
            async with connection.channel() as channel:
                with suppress(ChannelNotFoundEntity):
                    queue = await channel.get_queue(name)
                    await queue.purge()


@asynccontextmanager
async def consuming(
    queue: RabbitMQQueue, handler: Callable[[Delivery], Awaitable[None]], slots: int = 1, lane: Lane = Lane.NORMAL
) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()

    async def requested() -> None:
        await stop.wait()

    task = asyncio.create_task(queue.consume(handler, slots, Drain(requested, 5.0), lane))
    try:
        yield stop
        stop.set()
        await wait_for(task, 15.0)
    finally:
        task.cancel()
        await asyncio.wait({task})


class ReceivedIds(list[UUID]):
    """A handler that records the images' ids."""

    async def __call__(self, delivery: Delivery) -> None:
        self.append(delivery.image_id)


async def publish(queue: RabbitMQQueue) -> UUID:
    delivery = Delivery(image_id=uuid4())
    await queue.publish(delivery)
    return delivery.image_id


async def ready(url: str, name: str) -> int:
    """Return the number of ready messages of a queue."""
    async with channel_to(url) as channel:
        return (await channel.declare_queue(name, passive=True)).declaration_result.message_count or 0


async def eventually_ready(url: str, name: str, expected: int) -> None:
    async def are_ready() -> bool:
        return await ready(url, name) == expected

    await eventually(are_ready, timeout=RECOVERY)
