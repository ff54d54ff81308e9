"""Takes events from the exchange, through a queue of its own that keeps them while this program is not running.

    pip install aio-pika
    RABBITMQ_URL=amqp://guest:guest@localhost/ EVENTS_EXCHANGE=image.events python event_consumer.py

Start it once before the first upload: the exchange passes events only to queues that exist.
"""

import asyncio
import json
import os
from collections import OrderedDict
from typing import Any

from aio_pika import ExchangeType, connect_robust

EXCHANGE = os.environ.get("EVENTS_EXCHANGE", "image.events")
QUEUE = os.environ.get("QUEUE", "my-service.image-events")
TOPICS = ("image.done", "image.failed")
REMEMBERED = 10_000

handled: OrderedDict[str, None] = OrderedDict()
"""Ids of events, the oldest first. In production a table with the id as its key, in the transaction of the work."""


async def handle(event: dict[str, Any]) -> None:
    """Do the work on a CloudEvent."""
    print(event["type"], event["subject"], event["data"]["status"], flush=True)


async def main() -> None:
    """Take events until the program is ended."""
    connection = await connect_robust(os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost/"))
    async with connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=1)  # one at a time: in order for each image
        exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)  # as the service does
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        for topic in TOPICS:
            await queue.bind(exchange, topic)
        print("waiting for events", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process(requeue=True):  # acknowledged at the end; after an error it comes again
                    event = json.loads(message.body)
                    if event["id"] not in handled:  # every event comes at least once
                        await handle(event)
                        handled[event["id"]] = None
                        if len(handled) > REMEMBERED:
                            handled.popitem(last=False)


if __name__ == "__main__":
    asyncio.run(main())
