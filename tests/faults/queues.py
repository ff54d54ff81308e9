"""Direct operations on the broker's queues."""

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity

QUEUES = ("images", "images.express", "images.backfill", "images.dead")
EXPRESS = "images.express"
"""The queue of the small images of these tests."""


async def empty(url: str) -> None:
    """Purge all queues, as if the broker had lost its data."""
    async with await aio_pika.connect(url, timeout=5) as connection:
        for name in QUEUES:
            async with connection.channel() as channel:
                try:
                    queue = await channel.get_queue(name)
                except ChannelNotFoundEntity:
                    continue
                await queue.purge()


async def delete(url: str, name: str) -> None:
    """Delete a queue and its messages."""
    async with await aio_pika.connect(url, timeout=5) as connection, connection.channel() as channel:
        await channel.queue_delete(name)


async def send(url: str, name: str, image_id: str, *, times: int) -> None:
    """Publish further messages for an image."""
    body = f'{{"v":1,"image_id":"{image_id}"}}'.encode()
    async with await aio_pika.connect(url, timeout=5) as connection, connection.channel() as channel:
        for _ in range(times):
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, name)
