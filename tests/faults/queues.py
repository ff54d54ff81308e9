"""What the tests do at the broker itself."""

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity

QUEUES = ("images", "images.express", "images.backfill", "images.dead")
EXPRESS = "images.express"
"""Where the small images of these tests wait."""


async def empty(url: str) -> None:
    """Take every message out, as a broker does that has lost its data."""
    async with await aio_pika.connect(url, timeout=5) as connection:
        for name in QUEUES:
            async with connection.channel() as channel:
                try:
                    queue = await channel.get_queue(name)
                except ChannelNotFoundEntity:
                    continue
                await queue.purge()


async def delete(url: str, name: str) -> None:
    """Delete a queue with all that is in it."""
    async with await aio_pika.connect(url, timeout=5) as connection, connection.channel() as channel:
        await channel.queue_delete(name)


async def send(url: str, name: str, image_id: str, *, times: int) -> None:
    """Put more messages for an image into a queue."""
    body = f'{{"v":1,"image_id":"{image_id}"}}'.encode()
    async with await aio_pika.connect(url, timeout=5) as connection, connection.channel() as channel:
        for _ in range(times):
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, name)
