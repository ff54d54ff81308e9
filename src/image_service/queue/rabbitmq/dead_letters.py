"""Lists, retries and discards dead letters, for operators."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError

from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import DeadLetter, Delivery, RetryResult
from image_service.queue import messages
from image_service.queue.rabbitmq.connection import open_connection, reason_of
from image_service.queue.rabbitmq.timeouts import within
from image_service.queue.rabbitmq.topology import Topology

_STEP_TIMEOUT: Final = 5.0
"""Seconds for each answer of the broker. There may be thousands of letters, so there is no limit for all together."""
_CLOSE_TIMEOUT: Final = 3.0
_EXCERPT_BYTES: Final = 200
_EARLIER_DEATHS: Final = "dead-lettered"
"""Header with the count before the last retry: RabbitMQ's own count starts at zero for each message."""


class RabbitMQDeadLetters:
    """``ports.DeadLetters`` on a RabbitMQ broker, with a connection of its own for each call.

    Each call receives all letters, and requeues those it has not acknowledged. Meanwhile other readers see none.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host.
        queue_name: As for ``RabbitMQQueue``.
    """

    def __init__(self, url: str, queue_name: str = "images") -> None:
        self._url = url
        self._topology = Topology(queue_name)

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """Returns the oldest ``limit`` of them, oldest first; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer in time.
        """
        async with self._all_letters() as (_, held):
            letters = [_read(message) for message in held]
        # The broker keeps the order of some thirty requeued messages, and puts the others behind them in any order.
        return sorted(letters, key=_by_age)[:limit]

    async def retry(self) -> RetryResult:
        """Publish each letter that names an image to its lane; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer or confirm in time; the letters before that are retried.
        """
        handed_over = 0
        async with self._all_letters() as (channel, held):
            for message in held:
                if (delivery := _delivery(message)) is not None:
                    await within(_STEP_TIMEOUT, self._publish(channel, message, delivery))
                    await within(_STEP_TIMEOUT, message.ack())
                    handed_over += 1
        return RetryResult(handed_over=handed_over, remaining=len(held) - handed_over)

    async def discard_unreadable(self) -> int:
        """Discard the letters that name no image; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer in time.
        """
        async with self._all_letters() as (_, held):
            unreadable = [message for message in held if _delivery(message) is None]
            for message in unreadable:
                await within(_STEP_TIMEOUT, message.ack())
        return len(unreadable)

    @asynccontextmanager
    async def _all_letters(self) -> AsyncIterator[tuple[AbstractChannel, Sequence[AbstractIncomingMessage]]]:
        """Yield the channel and every letter. Letters not acknowledged at the end of the block are requeued."""
        try:
            connection = await open_connection(self._url, f"image-service dead letters {self._topology.name}")
            try:
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await within(_STEP_TIMEOUT, channel.initialize())
                held = await self._receive_all(channel)
                yield channel, held
                if held:
                    await within(_STEP_TIMEOUT, _requeue_all(channel))
            finally:
                # Closing requeues too, if an error came before.
                with suppress(Exception):
                    await within(_CLOSE_TIMEOUT, connection.close())
        except QueueUnavailable:
            raise
        except TimeoutError:
            raise QueueUnavailable("The broker did not answer in time.") from None
        except Exception as error:  # noqa: BLE001 - a dozen unrelated classes of aio-pika, which mean the same here
            # Without its cause, which may quote a part of the password.
            raise QueueUnavailable(f"The broker cannot be asked for its dead letters ({reason_of(error)}).") from None

    async def _receive_all(self, channel: AbstractChannel) -> Sequence[AbstractIncomingMessage]:
        """Returns all letters; receiving them one by one ends, since none is requeued meanwhile."""
        held: list[AbstractIncomingMessage] = []
        queue = await channel.get_queue(self._topology.dead_letter_queue, ensure=False)
        try:
            while message := await within(_STEP_TIMEOUT, queue.get(fail=False, timeout=None)):
                held.append(message)
        except ChannelNotFoundEntity:
            return []  # the service has never used this broker
        return held

    async def _publish(self, channel: AbstractChannel, letter: AbstractIncomingMessage, delivery: Delivery) -> None:
        message = Message(
            letter.body,  # unchanged: a later version of the service may have added fields unknown to this one
            content_type=letter.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            correlation_id=messages.correlation_id(delivery),
            headers={_EARLIER_DEATHS: _times(letter)},
        )
        queue = self._topology.queue_of(self._lane_of(letter))
        try:
            await channel.default_exchange.publish(message, queue, mandatory=True)
        except PublishError:
            raise QueueUnavailable(f"The queue {queue} is missing. Start the service, which creates it.") from None

    def _lane_of(self, letter: AbstractIncomingMessage) -> Lane:
        """Returns the lane a letter came from; the normal lane if the letter was published to the queue directly."""
        origin = _latest_death(letter).get("queue")
        return next((lane for lane in Lane if self._topology.queue_of(lane) == origin), Lane.NORMAL)


async def _requeue_all(channel: AbstractChannel) -> None:
    underlay = await channel.get_underlay_channel()
    await underlay.basic_nack(0, multiple=True, requeue=True)  # 0 means all
    # The broker does not answer a nack. It answers the closing, after it.
    await channel.close()


def _read(message: AbstractIncomingMessage) -> DeadLetter:
    death = _latest_death(message)
    queue, reason, died_at = death.get("queue"), death.get("reason"), death.get("time")
    return DeadLetter(
        image_id=delivery.image_id if (delivery := _delivery(message)) else None,
        body=message.body[:_EXCERPT_BYTES],
        queue=queue if isinstance(queue, str) else None,
        reason=reason if isinstance(reason, str) else None,
        died_at=died_at if isinstance(died_at, datetime) else None,
        times=_times(message),
    )


def _delivery(message: AbstractIncomingMessage) -> Delivery | None:
    try:
        return messages.decode(message.body, message.correlation_id)
    except messages.UndecodableMessage:
        return None


def _latest_death(message: AbstractIncomingMessage) -> dict[str, Any]:
    """Returns the broker's latest ``x-death`` entry. Any client can forge the header, so its content is unreliable."""
    deaths = message.headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return {}


def _times(message: AbstractIncomingMessage) -> int:
    counts = (_latest_death(message).get("count"), message.headers.get(_EARLIER_DEATHS))
    return sum(count for count in counts if isinstance(count, int))


def _by_age(letter: DeadLetter) -> tuple[datetime, UUID, bytes]:
    """Sort key. The broker's clock has whole seconds; within one, letters are ordered by the image's id."""
    return (letter.died_at or datetime.min.replace(tzinfo=UTC), letter.image_id or UUID(int=0), letter.body)
