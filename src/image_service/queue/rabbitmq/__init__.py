"""The task queue on RabbitMQ: one durable quorum queue, and a dead-letter queue that only raises an alarm.

Publishing and consuming use connections of their own, because the broker stops reading from connections that publish
while it is short of memory or disk. Each connection is kept by a small loop of ours rather than by aio-pika's robust
one, whose hidden waiting would let a publish hang: here an operation on a lost connection fails at once.
"""

from image_service.queue.rabbitmq.queue import RabbitMQQueue

__all__ = ["RabbitMQQueue"]
