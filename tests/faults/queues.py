"""Direct operations on the broker's queues."""

import aio_pika

from harness.broker import CONNECT_LIMIT

EXPRESS = "images.express"
"""The queue of the small images of these tests."""


async def delete(url: str, name: str) -> None:
    """Delete a queue and its messages."""
    async with await aio_pika.connect(url, timeout=CONNECT_LIMIT) as connection, connection.channel() as channel:
        await channel.queue_delete(name)


async def send(url: str, name: str, image_id: str, *, times: int) -> None:
    """Publish further messages for an image."""
    body = f'{{"v":1,"image_id":"{image_id}"}}'.encode()
    async with await aio_pika.connect(url, timeout=CONNECT_LIMIT) as connection, connection.channel() as channel:
        for _ in range(times):
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, name)
