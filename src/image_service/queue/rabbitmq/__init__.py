"""The task queue on RabbitMQ: a durable quorum queue for each lane, and a dead-letter queue.

Publishing and consuming use separate connections, because the broker stops reading from connections that publish while
it is short of memory or disk. A small loop of ours keeps each connection open, rather than aio-pika's robust
connection, whose hidden waits would let a publish hang: here an operation on a lost connection fails at once.
"""

from image_service.queue.rabbitmq.dead_letters import RabbitMQDeadLetters
from image_service.queue.rabbitmq.exchange import RabbitMQExchange
from image_service.queue.rabbitmq.queue import RabbitMQQueue
from image_service.queue.rabbitmq.signal import RabbitMQSignal

__all__ = ["RabbitMQDeadLetters", "RabbitMQExchange", "RabbitMQQueue", "RabbitMQSignal"]
