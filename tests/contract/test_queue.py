"""The contract of ``ports.TaskQueue``, for every adapter."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from harness.broker import start
from harness.waiting import eventually, wait_for
from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import Delivery, Drain, Handler, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQQueue

LIMIT = 10.0
GRACE = 5.0
REQUEUE_DELAY = 0.05


class MakeQueue(Protocol):
    """Makes a new queue that is not started."""

    def __call__(self, requeue_delay: float = ...) -> TaskQueue: ...


@pytest.fixture(params=["embedded", "rabbitmq"])
def make_queue(request: pytest.FixtureRequest) -> MakeQueue:
    if request.param == "embedded":
        return lambda requeue_delay=REQUEUE_DELAY: EmbeddedQueue(requeue_delay)
    url: str = request.getfixturevalue("rabbitmq_url")
    return lambda requeue_delay=REQUEUE_DELAY: RabbitMQQueue(
        url, queue_name=f"contract-{uuid4().hex}", requeue_delay=requeue_delay
    )


@pytest.fixture
async def queue(make_queue: MakeQueue) -> AsyncIterator[TaskQueue]:
    queue = make_queue()
    await start(queue)
    yield queue
    await queue.close()


@dataclass
class Recorder:
    """A handler that records its deliveries, and blocks while its gate is closed."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    started: list[Delivery] = field(default_factory=list)
    finished: list[Delivery] = field(default_factory=list)
    cancelled: list[Delivery] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def __call__(self, delivery: Delivery) -> None:
        self.started.append(delivery)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(delivery)
            raise
        finally:
            self.running -= 1
        self.finished.append(delivery)


def recorder(*, closed: bool = False) -> Recorder:
    made = Recorder()
    if not closed:
        made.gate.set()
    return made


@dataclass
class Running:
    """A running consumer."""

    task: asyncio.Task[None]
    stop: asyncio.Event

    async def request_drain(self) -> None:
        """Request the drain, and let the event loop run until the consumer has noticed."""
        self.stop.set()
        for _ in range(20):
            await asyncio.sleep(0)

    async def drained(self) -> None:
        self.stop.set()
        await wait_for(self.task, LIMIT)


@asynccontextmanager
async def consuming(
    queue: TaskQueue, handler: Handler, slots: int = 1, grace: float = GRACE, lane: Lane = Lane.NORMAL
) -> AsyncIterator[Running]:
    stop = asyncio.Event()

    async def requested() -> None:
        await stop.wait()

    task = asyncio.create_task(queue.consume(handler, slots, Drain(requested, grace), lane))
    running = Running(task, stop)
    try:
        yield running
        if not task.done():
            await running.drained()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def publish(queue: TaskQueue, count: int, lane: Lane = Lane.NORMAL) -> set[UUID]:
    deliveries = [Delivery(image_id=uuid4(), lane=lane) for _ in range(count)]
    for delivery in deliveries:
        await queue.publish(delivery)
    return {delivery.image_id for delivery in deliveries}


def ids(deliveries: list[Delivery]) -> set[UUID]:
    return {delivery.image_id for delivery in deliveries}


async def waiting(queue: TaskQueue) -> int:
    """The number of waiting messages in all lanes."""
    return sum((await queue.depth()).values())


async def depth_is(queue: TaskQueue, expected: int) -> None:
    async with asyncio.timeout(LIMIT):
        while await waiting(queue) != expected:  # noqa: ASYNC110 - a broker's counter offers no event to wait for
            await asyncio.sleep(0.02)


async def take(queue: TaskQueue, count: int) -> set[UUID]:
    """Consume ``count`` deliveries, which must be all there are."""
    handler = recorder()
    async with consuming(queue, handler, slots=5):
        await eventually(lambda: len(handler.finished) >= count, timeout=LIMIT)
    assert len(handler.started) == count
    assert await waiting(queue) == 0
    return ids(handler.finished)


@pytest.mark.parametrize("request_id", [None, "r-1", "ünïcode ✓"])
async def test_published_delivery_arrives_with_its_request_id(queue: TaskQueue, request_id: str | None) -> None:
    delivery = Delivery(image_id=uuid4(), request_id=request_id)
    handler = recorder()
    async with consuming(queue, handler):
        await queue.publish(delivery)
        await eventually(lambda: handler.finished)
    assert handler.finished == [delivery]


@pytest.mark.parametrize("lane", Lane)
async def test_delivery_has_its_lane(queue: TaskQueue, lane: Lane) -> None:
    delivery = Delivery(image_id=uuid4(), lane=lane)
    handler = recorder()
    async with consuming(queue, handler, lane=lane):
        await queue.publish(delivery)
        await eventually(lambda: handler.finished)
    assert handler.finished == [delivery]


async def test_messages_published_before_the_consumer_are_delivered(queue: TaskQueue) -> None:
    published = await publish(queue, 20)
    assert await take(queue, 20) == published


async def test_concurrent_publishing_loses_nothing(queue: TaskQueue) -> None:
    published = await asyncio.gather(*(publish(queue, 2) for _ in range(50)))
    assert await take(queue, 100) == set().union(*published)


async def test_message_published_twice_is_delivered_twice(queue: TaskQueue) -> None:
    delivery = Delivery(image_id=uuid4())
    await queue.publish(delivery)
    await queue.publish(delivery)
    handler = recorder()
    async with consuming(queue, handler, slots=2):
        await eventually(lambda: len(handler.finished) == 2)
    assert handler.finished == [delivery, delivery]


@pytest.mark.parametrize("slots", [1, 3])
async def test_at_most_slots_handlers_run_at_once(queue: TaskQueue, slots: int) -> None:
    await publish(queue, 8)
    handler = recorder(closed=True)
    async with consuming(queue, handler, slots):
        await eventually(lambda: handler.running == slots)
        await depth_is(queue, 8 - slots)
        handler.gate.set()
        await eventually(lambda: len(handler.finished) == 8)
    assert handler.most == slots


async def test_slow_delivery_does_not_block_other_slots(queue: TaskQueue) -> None:
    first = Delivery(image_id=uuid4())
    gate = asyncio.Event()
    finished: list[UUID] = []

    async def handler(delivery: Delivery) -> None:
        if delivery == first:
            await gate.wait()
        finished.append(delivery.image_id)

    await queue.publish(first)
    async with consuming(queue, handler, slots=2):
        others = await publish(queue, 5)
        await eventually(lambda: set(finished) == others)
        gate.set()


async def test_handled_delivery_is_not_delivered_again(queue: TaskQueue) -> None:
    published = await publish(queue, 5)
    assert await take(queue, 5) == published
    last = await publish(queue, 1)
    assert await take(queue, 1) == last


@pytest.mark.parametrize("error", [RuntimeError, QueueUnavailable, OSError])
async def test_delivery_is_requeued_if_its_handler_raises(queue: TaskQueue, error: type[Exception]) -> None:
    tries: Counter[UUID] = Counter()

    async def handler(delivery: Delivery) -> None:
        tries[delivery.image_id] += 1
        if tries[delivery.image_id] < 3:
            raise error

    published = await publish(queue, 2)
    async with consuming(queue, handler, slots=2):
        await eventually(lambda: tries == dict.fromkeys(published, 3), timeout=LIMIT)
    assert await waiting(queue) == 0
    assert tries == dict.fromkeys(published, 3)


async def test_requeue_delay_grows_with_each_try(queue: TaskQueue) -> None:
    moments: list[float] = []

    async def handler(_: Delivery) -> None:
        moments.append(asyncio.get_running_loop().time())
        raise QueueUnavailable

    await publish(queue, 1)
    async with consuming(queue, handler):
        await eventually(lambda: len(moments) == 4, timeout=LIMIT)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap >= REQUEUE_DELAY / 2 for gap in gaps)
    assert gaps[2] > gaps[0], "the delay grows"


async def test_drain_finishes_running_handlers_and_requeues_the_rest(queue: TaskQueue) -> None:
    published = await publish(queue, 6)
    handler = recorder(closed=True)
    async with consuming(queue, handler, slots=2) as consumer:
        await eventually(lambda: handler.running == 2)
        await consumer.request_drain()
        await depth_is(queue, 4)
        assert not consumer.task.done()
        handler.gate.set()
        await consumer.drained()
    assert ids(handler.started) == ids(handler.finished)
    assert len(handler.finished) == 2
    assert await take(queue, 4) == published - ids(handler.finished)


async def test_nothing_is_consumed_after_the_drain_request(queue: TaskQueue) -> None:
    handler = recorder(closed=True)
    await publish(queue, 1)
    async with consuming(queue, handler, slots=3) as consumer:
        await eventually(lambda: handler.running == 1)
        await consumer.request_drain()
        late = await publish(queue, 3)
        await depth_is(queue, 3)
        handler.gate.set()
        await consumer.drained()
    assert len(handler.started) == 1
    assert await take(queue, 3) == late


async def test_handler_that_exceeds_the_grace_period_is_cancelled_and_requeued(queue: TaskQueue) -> None:
    published = await publish(queue, 1)
    handler = recorder(closed=True)
    async with consuming(queue, handler, grace=0.1) as consumer:
        await eventually(lambda: handler.running == 1)
        await consumer.drained()
    assert ids(handler.cancelled) == published
    assert await take(queue, 1) == published


async def test_drain_requeues_a_failed_delivery_without_a_delay(make_queue: MakeQueue) -> None:
    queue = make_queue(requeue_delay=60.0)
    await start(queue)
    failed = asyncio.Event()

    async def handler(_: Delivery) -> None:
        failed.set()
        raise QueueUnavailable

    await queue.publish(Delivery(image_id=uuid4()))
    async with consuming(queue, handler, grace=60.0) as consumer:
        await failed.wait()
        async with asyncio.timeout(30):  # less than the delay
            await consumer.drained()
    await depth_is(queue, 1)
    await queue.close()


async def test_idle_consumer_drains_at_once(queue: TaskQueue) -> None:
    async with consuming(queue, recorder(), slots=4, grace=60.0) as consumer:
        await consume_one(queue)
        async with asyncio.timeout(5):
            await consumer.drained()


async def consume_one(queue: TaskQueue) -> None:
    """Publish a delivery, and wait until a consumer has it."""
    await publish(queue, 1)
    await depth_is(queue, 0)


async def test_cancelled_consumer_cancels_its_handlers_and_requeues_everything(queue: TaskQueue) -> None:
    published = await publish(queue, 4)
    handler = recorder(closed=True)
    async with consuming(queue, handler, slots=2, grace=60.0) as consumer:
        await eventually(lambda: handler.running == 2)
        consumer.task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait({consumer.task})
    assert consumer.task.cancelled()
    assert handler.running == 0
    assert len(handler.cancelled) == 2
    await depth_is(queue, 4)
    assert await take(queue, 4) == published


async def test_two_consumers_share_the_messages(queue: TaskQueue) -> None:
    one, other = recorder(closed=True), recorder(closed=True)
    async with consuming(queue, one, slots=2), consuming(queue, other, slots=2):
        published = await publish(queue, 4)
        await eventually(lambda: one.running == other.running == 2)
        one.gate.set()
        other.gate.set()
        await eventually(lambda: len(one.finished) + len(other.finished) == 4)
    assert ids(one.finished) | ids(other.finished) == published


async def test_depth_excludes_held_messages(queue: TaskQueue) -> None:
    assert await waiting(queue) == 0
    await publish(queue, 3)
    assert await waiting(queue) == 3
    handler = recorder(closed=True)
    async with consuming(queue, handler):
        await eventually(lambda: handler.running == 1)
        assert await waiting(queue) == 2
        handler.gate.set()
        await depth_is(queue, 0)


async def test_lanes_do_not_wait_for_each_other(queue: TaskQueue) -> None:
    busy, free = recorder(closed=True), recorder()
    normal = await publish(queue, 3)
    async with consuming(queue, busy), consuming(queue, free, lane=Lane.EXPRESS):
        await eventually(lambda: busy.started)
        express = Delivery(image_id=uuid4(), lane=Lane.EXPRESS)
        await queue.publish(express)
        await eventually(lambda: free.finished)
        assert ids(free.started) == {express.image_id}
        busy.gate.set()
        await eventually(lambda: len(busy.finished) == 3)
    assert ids(busy.finished) == normal


async def test_depth_is_per_lane(queue: TaskQueue) -> None:
    assert await queue.depth() == dict.fromkeys(Lane, 0)
    expected = {lane: number for number, lane in enumerate(Lane, start=1)}
    for lane, count in expected.items():
        await publish(queue, count, lane)
    assert await queue.depth() == expected


@asynccontextmanager
async def consuming_every_lane(queue: TaskQueue, handlers: dict[Lane, Handler]) -> AsyncIterator[dict[Lane, Running]]:
    async with AsyncExitStack() as stack:
        yield {lane: await stack.enter_async_context(consuming(queue, handlers[lane], lane=lane)) for lane in Lane}


@pytest.mark.parametrize("broken", Lane)
async def test_outage_in_one_lane_does_not_affect_the_others(queue: TaskQueue, broken: Lane) -> None:
    tries = 0

    async def in_an_outage(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        raise QueueUnavailable

    healthy = recorder()
    async with consuming_every_lane(queue, {**dict.fromkeys(Lane, healthy), broken: in_an_outage}):
        await publish(queue, 1, broken)
        await eventually(lambda: tries >= 2, timeout=LIMIT)
        published = set[UUID]().union(*[await publish(queue, 3, lane) for lane in Lane if lane is not broken])
        await eventually(lambda: ids(healthy.finished) == published)
    await depth_is(queue, 1)
    assert (await queue.depth())[broken] == 1


async def test_outage_during_the_drain_requeues_every_lane(queue: TaskQueue) -> None:
    gate = asyncio.Event()
    running: set[UUID] = set()

    async def in_an_outage(delivery: Delivery) -> None:
        running.add(delivery.image_id)
        await gate.wait()
        raise QueueUnavailable

    published = {lane: await publish(queue, 2, lane) for lane in Lane}
    async with consuming_every_lane(queue, dict.fromkeys(Lane, in_an_outage)) as consumers:
        await eventually(lambda: len(running) == len(Lane))
        for consumer in consumers.values():
            await consumer.request_drain()
        gate.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*(consumer.drained() for consumer in consumers.values()))
    await depth_is(queue, 2 * len(Lane))
    handlers = {lane: recorder() for lane in Lane}
    async with consuming_every_lane(queue, dict(handlers)):
        await eventually(lambda: {lane: ids(handler.finished) for lane, handler in handlers.items()} == published)


OPERATIONS: dict[str, Callable[[TaskQueue], Awaitable[object]]] = {
    "publish": lambda queue: queue.publish(Delivery(image_id=uuid4())),
    "depth": lambda queue: queue.depth(),
    "consume": lambda queue: queue.consume(recorder(), 1, Drain(asyncio.Event().wait, GRACE)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operations_fail_after_close(queue: TaskQueue, operation: str) -> None:
    await queue.close()
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](queue)


@pytest.mark.parametrize("operation", ["publish", "depth"])
async def test_operations_fail_before_start(make_queue: MakeQueue, operation: str) -> None:
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](make_queue())


async def test_start_and_close_can_be_repeated(queue: TaskQueue) -> None:
    await queue.start()
    await queue.depth()
    await queue.close()
    await queue.close()


async def test_queue_that_was_not_started_can_be_closed(make_queue: MakeQueue) -> None:
    await make_queue().close()


async def test_close_stops_a_consumer(queue: TaskQueue) -> None:
    await publish(queue, 1)
    handler = recorder(closed=True)
    async with consuming(queue, handler, grace=60.0) as consumer:
        await eventually(lambda: handler.running == 1)
        await queue.close()
        async with asyncio.timeout(5):
            await asyncio.wait({consumer.task})
    assert len(handler.cancelled) == 1
