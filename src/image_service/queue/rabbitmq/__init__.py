"""The task queue on RabbitMQ: a durable quorum queue for each lane, and a dead-letter queue that raises an alarm.

Publishing and consuming use connections of their own, because the broker stops reading from connections that publish
while it is short of memory or disk. Each connection is kept by a small loop of ours rather than by aio-pika's robust
one, whose hidden waiting would let a publish hang: here an operation on a lost connection fails at once.
"""

from image_service.queue.rabbitmq.dead_letters import RabbitMQDeadLetters
from image_service.queue.rabbitmq.queue import RabbitMQQueue

__all__ = ["RabbitMQDeadLetters", "RabbitMQQueue"]
