"""The operator's side of it: reading the dead letters, and sending them on their way again."""

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
from image_service.queue.rabbitmq.link import open_connection, reason_of
from image_service.queue.rabbitmq.topology import Topology
from image_service.queue.rabbitmq.waiting import within

_STEP_LIMIT: Final = 5.0
"""Seconds that the broker has for each answer. There may be thousands of letters, so all of them together have none."""
_CLOSE_LIMIT: Final = 3.0
_EXCERPT: Final = 200
_EARLIER_DEATHS: Final = "dead-lettered"
"""The header that counts on across retries: RabbitMQ's own count starts anew with each message."""


class RabbitMQDeadLetters:
    """``ports.DeadLetters`` on a RabbitMQ broker, with a connection of its own for each call.

    Each call takes all letters in hand, and gives back what it has not acknowledged. While it lasts, others see none.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host.
        queue_name: As for ``RabbitMQQueue``.
    """

    def __init__(self, url: str, queue_name: str = "images") -> None:
        self._url = url
        self._topology = Topology(queue_name)

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest ``limit`` of them, oldest first; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer in time.
        """
        async with self._all_in_hand() as (_, held):
            letters = [_read(message) for message in held]
        # The broker keeps the order of some thirty that are given back, and puts the others behind them in any order.
        return sorted(letters, key=_by_age)[:limit]

    async def retry(self) -> RetryResult:
        """Put each one that names an image back into its lane; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer, or did not take a message, in time; those before it are done.
        """
        handed_over = 0
        async with self._all_in_hand() as (channel, held):
            for message in held:
                if (delivery := _delivery(message)) is not None:
                    await within(_STEP_LIMIT, self._hand_over(channel, message, delivery))
                    await within(_STEP_LIMIT, message.ack())
                    handed_over += 1
        return RetryResult(handed_over=handed_over, remaining=len(held) - handed_over)

    async def discard_unreadable(self) -> int:
        """Throw away those that name no image; see ``ports.DeadLetters``.

        Raises:
            QueueUnavailable: the broker did not answer in time.
        """
        async with self._all_in_hand() as (_, held):
            unreadable = [message for message in held if _delivery(message) is None]
            for message in unreadable:
                await within(_STEP_LIMIT, message.ack())
        return len(unreadable)

    @asynccontextmanager
    async def _all_in_hand(self) -> AsyncIterator[tuple[AbstractChannel, Sequence[AbstractIncomingMessage]]]:
        """Every letter, and the channel it came on. What is not acknowledged by the end goes back to where it was."""
        try:
            connection = await open_connection(self._url, f"image-service dead letters {self._topology.name}")
            try:
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await within(_STEP_LIMIT, channel.initialize())
                held = await self._take_all(channel)
                yield channel, held
                if held:
                    await within(_STEP_LIMIT, _give_back(channel))
            finally:
                # Closing gives back, too, in case we did not get that far.
                with suppress(Exception):
                    await within(_CLOSE_LIMIT, connection.close())
        except QueueUnavailable:
            raise
        except TimeoutError:
            raise QueueUnavailable("The broker did not answer in time.") from None
        except Exception as error:  # noqa: BLE001 - a dozen unrelated classes of aio-pika, which mean the same here
            # Without its cause, which could quote a piece of the password.
            raise QueueUnavailable(f"The broker cannot be asked for its dead letters ({reason_of(error)}).") from None

    async def _take_all(self, channel: AbstractChannel) -> Sequence[AbstractIncomingMessage]:
        """All there are: taking them one by one ends, since none goes back meanwhile."""
        held: list[AbstractIncomingMessage] = []
        queue = await channel.get_queue(self._topology.dead_letter_queue, ensure=False)
        try:
            while message := await within(_STEP_LIMIT, queue.get(fail=False, timeout=None)):
                held.append(message)
        except ChannelNotFoundEntity:
            return []  # no queue, for the service has never run on this broker: then there are no letters either
        return held

    async def _hand_over(self, channel: AbstractChannel, letter: AbstractIncomingMessage, delivery: Delivery) -> None:
        message = Message(
            letter.body,  # byte by byte: a later version of the service may have put more into it than we can read
            content_type=letter.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            correlation_id=messages.correlation_id(delivery),
            headers={_EARLIER_DEATHS: _times(letter)},
        )
        queue = self._topology.queue_of(self._lane_of(letter))
        try:
            await channel.default_exchange.publish(message, queue, mandatory=True)
        except PublishError:
            raise QueueUnavailable(f"The queue {queue} is missing. Start the service, which makes it.") from None

    def _lane_of(self, letter: AbstractIncomingMessage) -> Lane:
        """Where it came from. What got here in another way takes the lane where it disturbs nobody in a make_due."""
        origin = _latest_death(letter).get("queue")
        return next((lane for lane in Lane if self._topology.queue_of(lane) == origin), Lane.NORMAL)


async def _give_back(channel: AbstractChannel) -> None:
    underlay = await channel.get_underlay_channel()
    await underlay.basic_nack(0, multiple=True, requeue=True)  # 0 stands for all
    # Settling has no answer. Closing has one, and comes after it.
    await channel.close()


def _read(message: AbstractIncomingMessage) -> DeadLetter:
    death = _latest_death(message)
    queue, reason, died_at = death.get("queue"), death.get("reason"), death.get("time")
    return DeadLetter(
        image_id=delivery.image_id if (delivery := _delivery(message)) else None,
        body=message.body[:_EXCERPT],
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
    """What the broker noted when it moved the message here. Anybody may have sent it, so nothing is certain."""
    deaths = message.headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return {}


def _times(message: AbstractIncomingMessage) -> int:
    counts = (_latest_death(message).get("count"), message.headers.get(_EARLIER_DEATHS))
    return sum(count for count in counts if isinstance(count, int))


def _by_age(letter: DeadLetter) -> tuple[datetime, UUID, bytes]:
    """The broker's clock shows seconds; within one, an image's id tells its age."""
    return (letter.died_at or datetime.min.replace(tzinfo=UTC), letter.image_id or UUID(int=0), letter.body)
