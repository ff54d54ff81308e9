"""What an operator can do about dead letters, on a real broker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from aio_pika import Message
from aio_pika.exceptions import ChannelNotFoundEntity

from harness.broker import channel_to, consuming, eventually_ready, publish, ready, started
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
    """The queues, as the service leaves them behind."""
    async with started(rabbitmq_url, name) as queue:
        await queue.probe()


@pytest.fixture
def letters(rabbitmq_url: str, name: str) -> RabbitMQDeadLetters:
    return RabbitMQDeadLetters(rabbitmq_url, name)


async def bury(url: str, name: str, *bodies: bytes, request_id: str | None = None) -> None:
    """Let bodies die in the queue of that name, one by one."""
    async with channel_to(url) as channel:
        queue = await channel.get_queue(name)
        dead = f"{name.split('.', maxsplit=1)[0]}.dead"
        expected = await ready(url, dead) + len(bodies)
        for body in bodies:
            await channel.default_exchange.publish(Message(body, correlation_id=request_id), name)
            await (await queue.get()).reject(requeue=False)
    await eventually_ready(url, dead, expected)


def bodies(count: int) -> list[bytes]:
    """Messages of images that were uploaded one after the other."""
    return [encode(Delivery(image_id=UUID(int=IMAGE_ID.int + number))) for number in range(count)]


def ids(listed: Sequence[DeadLetter]) -> list[UUID | None]:
    return [letter.image_id for letter in listed]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_where_the_service_never_ran_there_are_none_and_no_queue_is_made(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters, operation: str
) -> None:
    assert await OPERATIONS[operation](letters) in ([], RetryResult(handed_over=0, remaining=0), 0)
    with pytest.raises(ChannelNotFoundEntity):
        await ready(rabbitmq_url, f"{name}.dead")


@pytest.mark.usefixtures("queue")
async def test_where_nothing_died_there_are_none(letters: RabbitMQDeadLetters) -> None:
    assert await letters.list(MANY) == []
    assert await letters.retry() == RetryResult(handed_over=0, remaining=0)
    assert await letters.discard_unreadable() == 0


@pytest.mark.usefixtures("queue")
async def test_a_letter_tells_its_story(rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters) -> None:
    origins = [name, f"{name}.express", f"{name}.backfill"]
    for body, origin in zip(bodies(3), origins, strict=True):
        await bury(rabbitmq_url, origin, body)
    listed = await letters.list(MANY)
    assert [(letter.image_id, letter.body, letter.queue) for letter in listed] == [
        (UUID(int=IMAGE_ID.int + number), bodies(3)[number], origin) for number, origin in enumerate(origins)
    ]
    for letter in listed:
        assert letter.reason == "rejected"
        assert letter.times == 1
        assert letter.died_at is not None
        assert abs(datetime.now(UTC) - letter.died_at) < timedelta(minutes=1)


async def test_a_message_that_always_fails_tells_so(rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters) -> None:
    async def handler(_: Delivery) -> None:
        raise QueueUnavailable

    queue = RabbitMQQueue(rabbitmq_url, queue_name=name, give_back_pause=0.0)
    await queue.start()
    async with consuming(queue, handler):
        image_id = await publish(queue)
        await eventually_ready(rabbitmq_url, f"{name}.dead", 1)
    await queue.close()
    [letter] = await letters.list(MANY)
    assert (letter.image_id, letter.queue, letter.reason, letter.times) == (image_id, name, "delivery_limit", 1)


@pytest.mark.usefixtures("queue")
async def test_a_body_that_names_no_image_is_shown_up_to_a_length(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, b"\xff garbage")
    await bury(rabbitmq_url, name, b"x" * 100_000)
    assert {(letter.image_id, letter.body) for letter in await letters.list(MANY)} == {
        (None, b"\xff garbage"),
        (None, b"x" * 200),
    }


@pytest.mark.usefixtures("queue")
async def test_what_somebody_put_there_by_hand_has_no_story_and_is_retried_as_a_normal_image(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"x-death": "plague"},
        {"x-death": []},
        {"x-death": ["plague"]},
        {"x-death": [{"count": "often"}]},
    ]
    async with channel_to(rabbitmq_url) as channel:
        for headers, body in zip(odd, bodies(len(odd)), strict=True):
            await channel.default_exchange.publish(Message(body, headers=headers), f"{name}.dead")
    listed = await letters.list(MANY)
    assert ids(listed) == [UUID(int=IMAGE_ID.int + number) for number in range(len(odd))]
    assert {(letter.queue, letter.reason, letter.died_at, letter.times) for letter in listed} == {(None, None, None, 0)}
    assert await letters.retry() == RetryResult(handed_over=len(odd), remaining=0)
    await eventually_ready(rabbitmq_url, name, len(odd))


@pytest.mark.usefixtures("queue")
async def test_the_oldest_are_listed_and_the_same_each_time(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, *bodies(MANY))
    few = MANY // 2
    listed = await letters.list(few)
    assert ids(listed) == [UUID(int=IMAGE_ID.int + number) for number in range(few)]
    for _ in range(3):
        assert await letters.list(few) == listed


@pytest.mark.usefixtures("queue")
async def test_reading_more_often_than_a_broker_would_deliver_changes_nothing(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, b"garbage", *bodies(4))
    listed = await letters.list(MANY)
    for _ in range(25):
        assert await letters.list(MANY) == listed
    await eventually_ready(rabbitmq_url, f"{name}.dead", 5)


async def test_retried_letters_come_out_of_the_lanes_they_came_from(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    seen: dict[Lane, list[Delivery]] = {lane: [] for lane in Lane}
    async with started(rabbitmq_url, name) as queue:
        await queue.probe()
        for lane, body in zip(Lane, bodies(3), strict=True):
            origin = name if lane is Lane.NORMAL else f"{name}.{lane}"
            await bury(rabbitmq_url, origin, body, b"garbage", request_id=f"r-{lane}")
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
async def test_a_retried_letter_is_durable_and_what_a_later_version_wrote_is_kept(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    body = b'{"v":2, "image_id":"01900000-0000-7000-8000-000000000001", "added":[1]}'
    await bury(rabbitmq_url, name, body)
    assert await letters.retry() == RetryResult(handed_over=1, remaining=0)
    async with channel_to(rabbitmq_url) as channel:
        message = await (await channel.get_queue(name)).get(no_ack=True)
    assert message.body == body
    assert message.delivery_mode == 2


@pytest.mark.usefixtures("queue")
async def test_a_letter_that_was_retried_in_vain_tells_how_often(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, *bodies(1))
    for times in (1, 2, 3):
        [letter] = await letters.list(MANY)
        assert (letter.times, letter.queue, letter.reason) == (times, name, "rejected")
        assert await letters.retry() == RetryResult(handed_over=1, remaining=0)
        async with channel_to(rabbitmq_url) as channel:
            await (await (await channel.get_queue(name)).get()).reject(requeue=False)
        await eventually_ready(rabbitmq_url, f"{name}.dead", 1)


@pytest.mark.usefixtures("queue")
async def test_a_letter_stays_while_its_lane_is_missing(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, f"{name}.express", *bodies(2))
    listed = await letters.list(MANY)
    async with channel_to(rabbitmq_url) as channel:
        await channel.queue_delete(f"{name}.express")
    with pytest.raises(QueueUnavailable, match=rf"{name}\.express is missing"):
        await letters.retry()
    await eventually_ready(rabbitmq_url, f"{name}.dead", 2)
    assert await letters.list(MANY) == listed
    async with started(rabbitmq_url, name) as queue:
        await queue.probe()
    assert await letters.retry() == RetryResult(handed_over=2, remaining=0)


@pytest.mark.usefixtures("queue")
async def test_two_operators_at_once_hand_over_each_letter_once(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, *bodies(MANY))
    outcomes = await asyncio.gather(letters.retry(), letters.retry())
    assert sum(outcome.handed_over for outcome in outcomes) == MANY
    await eventually_ready(rabbitmq_url, name, MANY)
    await eventually_ready(rabbitmq_url, f"{name}.dead", 0)


@pytest.mark.usefixtures("queue")
async def test_only_what_names_no_image_is_discarded(
    rabbitmq_url: str, name: str, letters: RabbitMQDeadLetters
) -> None:
    await bury(rabbitmq_url, name, b"garbage", *bodies(2), b"more garbage")
    assert await letters.discard_unreadable() == 2
    assert ids(await letters.list(MANY)) == [IMAGE_ID, UUID(int=IMAGE_ID.int + 1)]
    assert await letters.discard_unreadable() == 0


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_closed_port_is_no_reason_to_wait(name: str, operation: str) -> None:
    letters = RabbitMQDeadLetters(f"amqp://guest:guest@127.0.0.1:{free_port()}/", name)
    watch = Stopwatch()
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](letters)
    assert watch.seconds < AT_ONCE


@pytest.mark.parametrize("moment", ["from the start", "in the middle"])
@pytest.mark.usefixtures("queue")
async def test_a_black_hole_costs_a_bounded_time_and_no_letter(rabbitmq_url: str, name: str, moment: str) -> None:
    await bury(rabbitmq_url, name, *bodies(MANY))
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
    """Whether each of the many is where it was, or already back in its lane."""

    async def back() -> bool:
        return await ready(url, name) + await ready(url, f"{name}.dead") >= MANY

    return await eventually(back)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://nobody:SECRET@{address}/",
        "amqp://guest:SE/CRET@{address}/",
        "http://guest:SECRET@{address}/",
        "not a url SECRET",
    ],
)
async def test_a_wrong_url_is_an_outage_that_does_not_tell_the_password(rabbitmq_url: str, name: str, url: str) -> None:
    letters = RabbitMQDeadLetters(url.format(address=urlsplit(rabbitmq_url).netloc.rpartition("@")[2]), name)
    with pytest.raises(QueueUnavailable) as caught:
        await letters.list(MANY)
    assert "CRET" not in str(caught.value)
    assert caught.value.__cause__ is None
