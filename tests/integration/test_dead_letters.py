"""Listing, retrying and discarding dead letters on a real broker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from aio_pika import Message
from aio_pika.exceptions import ChannelNotFoundEntity

from harness.broker import channel_to, consuming, eventually_ready, publish, ready, start, started
from harness.pace import Stopwatch
from harness.processes import free_port
from harness.proxy import Mode, Proxy
from harness.waiting import eventually
from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import DeadLetter, DeadLetters, Delivery, RetryResult
from image_service.queue.messages import encode
from image_service.queue.rabbitmq import RabbitMQDeadLetters, RabbitMQQueue

MANY = 100
AT_ONCE = 0.5
ANSWER_LIMIT = 9.0
IMAGE_ID = UUID("01900000-0000-7000-8000-000000000001")

OPERATIONS: dict[str, Callable[[DeadLetters], Awaitable[object]]] = {
    "list": lambda letters: letters.list(MANY),
    "retry": lambda letters: letters.retry(),
    "discard": lambda letters: letters.discard_unreadable(),
}


@pytest.fixture
def name() -> str:
    return f"dead-letters-{uuid4().hex}"


@pytest.fixture
async def queue(rabbitmq_url: str, name: str) -> None:
    """Declare the queues as the service does."""
    async with started(rabbitmq_url, name) as queue:
        await queue.depth()


@pytest.fixture
def letters(rabbitmq_url: str, name: str) -> RabbitMQDeadLetters:
    return RabbitMQDeadLetters(rabbitmq_url, name)


async def dead_letter(url: str, name: str, *bodies: bytes, request_id: str | None = None) -> None:
    """Dead-letter messages with these bodies from a queue, one by one."""
    async with channel_to(url) as channel:
        queue = await channel.get_queue(name)
        dead = f"{name.split('.', maxsplit=1)[0]}.dead"
        expected = await ready(url, dead) + len(bodies)
        for body in bodies:
            await channel.default_exchange.publish(Message(body, correlation_id=request_id), name)
            await (await queue.get()).reject(requeue=False)
    await eventually_ready(url, dead, expected)


def bodies(count: int) -> list[bytes]:
    """Messages of images that were uploaded one after another."""
    return [encode(Delivery(image_id=UUID(int=IMAGE_ID.int + number))) for number in range(count)]


def ids(listed: Sequence[DeadLetter]) -> list[UUID | None]:
    return [letter.image_id for letter in listed]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_unused_broker_has_no_dead_letters_and_gets_no_queue(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters, operation: str
) -> None:
    assert await OPERATIONS[operation](letters) in ([], RetryResult(handed_over=0, remaining=0), 0)
    with pytest.raises(ChannelNotFoundEntity):
        await ready(rabbitmq_url, f"{name}.dead")


@pytest.mark.usefixtures("queue")
async def test_empty_dead_letter_queue(letters: RabbitMQDeadLetters) -> None:
    assert await letters.list(MANY) == []
    assert await letters.retry() == RetryResult(handed_over=0, remaining=0)
    assert await letters.discard_unreadable() == 0


@pytest.mark.usefixtures("queue")
async def test_listed_letter_has_queue_reason_time_and_count(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    origins = [name, f"{name}.express", f"{name}.backfill"]
    for body, origin in zip(bodies(3), origins, strict=True):
        await dead_letter(rabbitmq_url, origin, body)
    listed = await letters.list(MANY)
    assert [(letter.image_id, letter.body, letter.queue) for letter in listed] == [
        (UUID(int=IMAGE_ID.int + number), bodies(3)[number], origin) for number, origin in enumerate(origins)
    ]
    for letter in listed:
        assert letter.reason == "rejected"
        assert letter.times == 1
        assert letter.died_at is not None
        assert abs(datetime.now(UTC) - letter.died_at) < timedelta(minutes=1)


async def test_letter_after_the_delivery_limit_has_that_reason(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    async def handler(_: Delivery) -> None:
        raise QueueUnavailable

    queue = RabbitMQQueue(rabbitmq_url, queue_name=name, requeue_delay=0.0)
    await start(queue)
    async with consuming(queue, handler):
        image_id = await publish(queue)
        await eventually_ready(rabbitmq_url, f"{name}.dead", 1)
    await queue.close()
    [letter] = await letters.list(MANY)
    assert (letter.image_id, letter.queue, letter.reason, letter.times) == (image_id, name, "delivery_limit", 1)


@pytest.mark.usefixtures("queue")
async def test_unreadable_body_is_listed_up_to_a_length(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, name, b"\xff garbage")
    await dead_letter(rabbitmq_url, name, b"x" * 100_000)
    assert {(letter.image_id, letter.body) for letter in await letters.list(MANY)} == {
        (None, b"\xff garbage"),
        (None, b"x" * 200),
    }


@pytest.mark.usefixtures("queue")
async def test_letter_published_by_hand_is_listed_and_retried_in_the_normal_lane(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    malformed: list[dict[str, Any]] = [
        {},
        {"x-death": "text"},
        {"x-death": []},
        {"x-death": ["text"]},
        {"x-death": [{"count": "text"}]},
    ]
    async with channel_to(rabbitmq_url) as channel:
        for headers, body in zip(malformed, bodies(len(malformed)), strict=True):
            await channel.default_exchange.publish(Message(body, headers=headers), f"{name}.dead")
    listed = await letters.list(MANY)
    assert ids(listed) == [UUID(int=IMAGE_ID.int + number) for number in range(len(malformed))]
    assert {(letter.queue, letter.reason, letter.died_at, letter.times) for letter in listed} == {(None, None, None, 0)}
    assert await letters.retry() == RetryResult(handed_over=len(malformed), remaining=0)
    await eventually_ready(rabbitmq_url, name, len(malformed))


@pytest.mark.usefixtures("queue")
async def test_list_returns_the_oldest_letters_repeatedly(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, name, *bodies(MANY))
    few = MANY // 2
    listed = await letters.list(few)
    assert ids(listed) == [UUID(int=IMAGE_ID.int + number) for number in range(few)]
    for _ in range(3):
        assert await letters.list(few) == listed


@pytest.mark.usefixtures("queue")
async def test_listing_more_often_than_the_delivery_limit_loses_nothing(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, name, b"garbage", *bodies(4))
    listed = await letters.list(MANY)
    for _ in range(25):
        assert await letters.list(MANY) == listed
    await eventually_ready(rabbitmq_url, f"{name}.dead", 5)


async def test_retried_letters_return_to_their_lanes(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    seen: dict[Lane, list[Delivery]] = {lane: [] for lane in Lane}
    async with started(rabbitmq_url, name) as queue:
        await queue.depth()
        for lane, body in zip(Lane, bodies(3), strict=True):
            origin = name if lane is Lane.NORMAL else f"{name}.{lane}"
            await dead_letter(rabbitmq_url, origin, body, b"garbage", request_id=f"r-{lane}")
        assert await letters.retry() == RetryResult(handed_over=3, remaining=3)
        assert ids(await letters.list(MANY)) == [None] * 3
        for lane, delivered in seen.items():

            async def handler(delivery: Delivery, delivered: list[Delivery] = delivered) -> None:
                delivered.append(delivery)

            async with consuming(queue, handler, lane=lane):
                await eventually(lambda delivered=delivered: delivered)  # type: ignore[misc]
    assert seen == {
        lane: [Delivery(image_id=UUID(int=IMAGE_ID.int + number), lane=lane, request_id=f"r-{lane}")]
        for number, lane in enumerate(Lane)
    }


@pytest.mark.usefixtures("queue")
async def test_retried_letter_is_persistent_and_unchanged(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    body = b'{"v":2, "image_id":"01900000-0000-7000-8000-000000000001", "added":[1]}'
    await dead_letter(rabbitmq_url, name, body)
    assert await letters.retry() == RetryResult(handed_over=1, remaining=0)
    async with channel_to(rabbitmq_url) as channel:
        message = await (await channel.get_queue(name)).get(no_ack=True)
    assert message.body == body
    assert message.delivery_mode == 2


@pytest.mark.usefixtures("queue")
async def test_letter_counts_its_retries(rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters) -> None:
    await dead_letter(rabbitmq_url, name, *bodies(1))
    for times in (1, 2, 3):
        [letter] = await letters.list(MANY)
        assert (letter.times, letter.queue, letter.reason) == (times, name, "rejected")
        assert await letters.retry() == RetryResult(handed_over=1, remaining=0)
        async with channel_to(rabbitmq_url) as channel:
            await (await (await channel.get_queue(name)).get()).reject(requeue=False)
        await eventually_ready(rabbitmq_url, f"{name}.dead", 1)


@pytest.mark.usefixtures("queue")
async def test_letter_stays_while_its_queue_is_missing(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, f"{name}.express", *bodies(2))
    listed = await letters.list(MANY)
    async with channel_to(rabbitmq_url) as channel:
        await channel.queue_delete(f"{name}.express")
    with pytest.raises(QueueUnavailable, match=rf"{name}\.express is missing"):
        await letters.retry()
    await eventually_ready(rabbitmq_url, f"{name}.dead", 2)
    assert await letters.list(MANY) == listed
    async with started(rabbitmq_url, name) as queue:
        await queue.depth()
    assert await letters.retry() == RetryResult(handed_over=2, remaining=0)


@pytest.mark.usefixtures("queue")
async def test_concurrent_retries_publish_each_letter_once(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, name, *bodies(MANY))
    outcomes = await asyncio.gather(letters.retry(), letters.retry())
    assert sum(outcome.handed_over for outcome in outcomes) == MANY
    await eventually_ready(rabbitmq_url, name, MANY)
    await eventually_ready(rabbitmq_url, f"{name}.dead", 0)


@pytest.mark.usefixtures("queue")
async def test_discard_removes_unreadable_letters_only(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await dead_letter(rabbitmq_url, name, b"garbage", *bodies(2), b"more garbage")
    assert await letters.discard_unreadable() == 2
    assert ids(await letters.list(MANY)) == [IMAGE_ID, UUID(int=IMAGE_ID.int + 1)]
    assert await letters.discard_unreadable() == 0


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_closed_port_is_an_outage_at_once(name: str, operation: str) -> None:
    letters = RabbitMQDeadLetters(f"amqp://guest:guest@127.0.0.1:{free_port()}/", name)
    watch = Stopwatch()
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](letters)
    assert watch.seconds < AT_ONCE


@pytest.mark.parametrize("moment", ["from the start", "in the middle"])
@pytest.mark.usefixtures("queue")
async def test_black_hole_times_out_and_loses_no_letter(rabbitmq_url: str, name: str, moment: str) -> None:
    await dead_letter(rabbitmq_url, name, *bodies(MANY))
    async with Proxy.before(rabbitmq_url) as proxy:
        if moment == "from the start":
            proxy.switch(Mode.BLACK_HOLE)
        else:
            proxy.delay = 0.01
            proxy.switch(Mode.DELAY)
        letters = RabbitMQDeadLetters(proxy.url(rabbitmq_url), name)
        tasks = [asyncio.ensure_future(operation(letters)) for operation in OPERATIONS.values()]
        if moment == "in the middle":
            await eventually_less(rabbitmq_url, f"{name}.dead", MANY)
            proxy.switch(Mode.BLACK_HOLE)
        watch = Stopwatch()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [QueueUnavailable] * len(tasks)
        assert watch.seconds < ANSWER_LIMIT
    assert await all_letters_back(rabbitmq_url, name)


async def eventually_less(url: str, name: str, than: int) -> None:
    async def fewer() -> bool:
        return await ready(url, name) < than

    await eventually(fewer)


async def all_letters_back(url: str, name: str) -> bool:
    """Whether every letter is in the dead-letter queue or in its lane."""

    async def back() -> bool:
        return await ready(url, name) + await ready(url, f"{name}.dead") >= MANY

    return await eventually(back)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://unknown:SECRET@{address}/",
        "amqp://guest:SE/CRET@{address}/",
        "http://guest:SECRET@{address}/",
        "not a url SECRET",
    ],
)
async def test_wrong_url_is_an_outage_without_the_password(rabbitmq_url: str, name: str, url: str) -> None:
    letters = RabbitMQDeadLetters(url.format(address=urlsplit(rabbitmq_url).netloc.rpartition("@")[2]), name)
    with pytest.raises(QueueUnavailable) as caught:
        await letters.list(MANY)
    assert "CRET" not in str(caught.value)
    assert caught.value.__cause__ is None
