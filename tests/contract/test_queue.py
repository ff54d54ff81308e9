"""What every task queue owes its users; written against the port alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from harness.waiting import eventually, wait_for
from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import Delivery, Drain, Handler, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQQueue

LIMIT = 10.0
GRACE = 5.0
PAUSE = 0.05


@pytest.fixture(params=["embedded", "rabbitmq"])
def make_queue(request: pytest.FixtureRequest) -> Callable[[], TaskQueue]:
    """Makes a new queue that is not started."""
    if request.param == "embedded":
        return lambda: EmbeddedQueue(give_back_pause=PAUSE)
    url: str = request.getfixturevalue("rabbitmq_url")
    return lambda: RabbitMQQueue(url, queue_name=f"contract-{uuid4().hex}", give_back_pause=PAUSE)


@pytest.fixture
async def queue(make_queue: Callable[[], TaskQueue]) -> AsyncIterator[TaskQueue]:
    queue = make_queue()
    await queue.start()
    yield queue
    await queue.close()


@dataclass
class Recorder:
    """A handler that notes what it gets, and lets nothing pass its gate while that is shut."""

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


def recorder(*, shut: bool = False) -> Recorder:
    made = Recorder()
    if not shut:
        made.gate.set()
    return made


@dataclass
class Running:
    """A consumer at work."""

    task: asyncio.Task[None]
    stop: asyncio.Event

    async def request_drain(self) -> None:
        """Returns when the consumer must have noticed: that takes turns of the event loop, and no time."""
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
    """How many messages wait in all lanes together."""
    return sum((await queue.depth()).values())


async def depth_is(queue: TaskQueue, expected: int) -> None:
    async with asyncio.timeout(LIMIT):
        while await waiting(queue) != expected:  # noqa: ASYNC110 - a broker's counter offers no event to wait for
            await asyncio.sleep(0.02)


async def take(queue: TaskQueue, count: int) -> set[UUID]:
    """What a new consumer gets, until it has ``count`` deliveries; and there are no more of them."""
    handler = recorder()
    async with consuming(queue, handler, slots=5):
        await eventually(lambda: len(handler.finished) >= count, timeout=LIMIT)
    assert len(handler.started) == count
    assert await waiting(queue) == 0
    return ids(handler.finished)


@pytest.mark.parametrize("request_id", [None, "r-1", "ünïcode ✓"])
async def test_what_is_published_is_delivered_with_its_request_id(queue: TaskQueue, request_id: str | None) -> None:
    delivery = Delivery(image_id=uuid4(), request_id=request_id)
    handler = recorder()
    async with consuming(queue, handler):
        await queue.publish(delivery)
        await eventually(lambda: handler.finished)
    assert handler.finished == [delivery]


@pytest.mark.parametrize("lane", Lane)
async def test_a_delivery_knows_the_lane_it_waited_in(queue: TaskQueue, lane: Lane) -> None:
    delivery = Delivery(image_id=uuid4(), lane=lane)
    handler = recorder()
    async with consuming(queue, handler, lane=lane):
        await queue.publish(delivery)
        await eventually(lambda: handler.finished)
    assert handler.finished == [delivery]


async def test_what_was_published_before_there_was_a_consumer_is_delivered(queue: TaskQueue) -> None:
    published = await publish(queue, 20)
    assert await take(queue, 20) == published


async def test_publishing_at_once_from_many_tasks_loses_nothing(queue: TaskQueue) -> None:
    published = await asyncio.gather(*(publish(queue, 2) for _ in range(50)))
    assert await take(queue, 100) == set().union(*published)


async def test_a_delivery_published_twice_is_delivered_twice(queue: TaskQueue) -> None:
    delivery = Delivery(image_id=uuid4())
    await queue.publish(delivery)
    await queue.publish(delivery)
    handler = recorder()
    async with consuming(queue, handler, slots=2):
        await eventually(lambda: len(handler.finished) == 2)
    assert handler.finished == [delivery, delivery]


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_more_than_the_slots_run_at_once(queue: TaskQueue, slots: int) -> None:
    await publish(queue, 8)
    handler = recorder(shut=True)
    async with consuming(queue, handler, slots):
        await eventually(lambda: handler.running == slots)
        await depth_is(queue, 8 - slots)
        handler.gate.set()
        await eventually(lambda: len(handler.finished) == 8)
    assert handler.most == slots


async def test_one_slow_delivery_does_not_hold_up_the_other_slots(queue: TaskQueue) -> None:
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


async def test_a_handled_delivery_never_comes_back(queue: TaskQueue) -> None:
    published = await publish(queue, 5)
    assert await take(queue, 5) == published
    last = await publish(queue, 1)
    assert await take(queue, 1) == last


@pytest.mark.parametrize("error", [RuntimeError, QueueUnavailable, OSError])
async def test_a_delivery_whose_handler_raises_is_delivered_again(queue: TaskQueue, error: type[Exception]) -> None:
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


async def test_a_failing_delivery_is_not_retried_in_a_hot_loop(queue: TaskQueue) -> None:
    moments: list[float] = []

    async def handler(_: Delivery) -> None:
        moments.append(asyncio.get_running_loop().time())
        raise QueueUnavailable

    await publish(queue, 1)
    async with consuming(queue, handler):
        await eventually(lambda: len(moments) == 4, timeout=LIMIT)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap >= PAUSE / 2 for gap in gaps)
    assert gaps[2] > gaps[0], "the pause grows"


async def test_on_the_drain_the_running_finish_and_the_rest_goes_back(queue: TaskQueue) -> None:
    published = await publish(queue, 6)
    handler = recorder(shut=True)
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


async def test_nothing_is_taken_once_the_drain_is_requested(queue: TaskQueue) -> None:
    handler = recorder(shut=True)
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


async def test_a_handler_that_outlasts_the_grace_is_cancelled_and_its_delivery_goes_back(queue: TaskQueue) -> None:
    published = await publish(queue, 1)
    handler = recorder(shut=True)
    async with consuming(queue, handler, grace=0.1) as consumer:
        await eventually(lambda: handler.running == 1)
        await consumer.drained()
    assert ids(handler.cancelled) == published
    assert await take(queue, 1) == published


async def test_on_the_drain_a_failed_delivery_goes_back_without_a_pause(make_queue: Callable[[], TaskQueue]) -> None:
    queue = make_queue()
    queue._give_back_pause = 60.0  # type: ignore[attr-defined]
    await queue.start()
    failed = asyncio.Event()

    async def handler(_: Delivery) -> None:
        failed.set()
        raise QueueUnavailable

    await queue.publish(Delivery(image_id=uuid4()))
    async with consuming(queue, handler, grace=60.0) as consumer:
        await failed.wait()
        async with asyncio.timeout(5):
            await consumer.drained()
    assert await waiting(queue) == 1
    await queue.close()


async def test_an_idle_consumer_drains_at_once(queue: TaskQueue) -> None:
    async with consuming(queue, recorder(), slots=4, grace=60.0) as consumer:
        await take_one_through(queue)
        async with asyncio.timeout(5):
            await consumer.drained()


async def take_one_through(queue: TaskQueue) -> None:
    """Returns once a consumer has taken a delivery."""
    await publish(queue, 1)
    await depth_is(queue, 0)


async def test_cancelling_a_consumer_cancels_its_handlers_and_gives_everything_back(queue: TaskQueue) -> None:
    published = await publish(queue, 4)
    handler = recorder(shut=True)
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


async def test_two_consumers_share_the_work(queue: TaskQueue) -> None:
    one, other = recorder(shut=True), recorder(shut=True)
    async with consuming(queue, one, slots=2), consuming(queue, other, slots=2):
        published = await publish(queue, 4)
        await eventually(lambda: one.running == other.running == 2)
        one.gate.set()
        other.gate.set()
        await eventually(lambda: len(one.finished) + len(other.finished) == 4)
    assert ids(one.finished) | ids(other.finished) == published


async def test_depth_counts_what_waits_and_not_what_is_held(queue: TaskQueue) -> None:
    assert await waiting(queue) == 0
    await publish(queue, 3)
    assert await waiting(queue) == 3
    handler = recorder(shut=True)
    async with consuming(queue, handler):
        await eventually(lambda: handler.running == 1)
        assert await waiting(queue) == 2
        handler.gate.set()
        await depth_is(queue, 0)


async def test_an_open_queue_passes_its_probe(queue: TaskQueue) -> None:
    await queue.probe()


async def test_a_lane_does_not_wait_for_another(queue: TaskQueue) -> None:
    busy, free = recorder(shut=True), recorder()
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


async def test_the_depth_counts_each_lane(queue: TaskQueue) -> None:
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
async def test_a_lane_in_an_outage_does_not_disturb_the_others(queue: TaskQueue, broken: Lane) -> None:
    tries = 0

    async def in_an_outage(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        raise QueueUnavailable

    well = recorder()
    async with consuming_every_lane(queue, {**dict.fromkeys(Lane, well), broken: in_an_outage}):
        await publish(queue, 1, broken)
        await eventually(lambda: tries >= 2, timeout=LIMIT)
        published = set[UUID]().union(*[await publish(queue, 3, lane) for lane in Lane if lane is not broken])
        await eventually(lambda: ids(well.finished) == published)
    await depth_is(queue, 1)
    assert (await queue.depth())[broken] == 1


async def test_an_outage_during_the_drain_gives_back_what_every_lane_holds(queue: TaskQueue) -> None:
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
    "probe": lambda queue: queue.probe(),
    "consume": lambda queue: queue.consume(recorder(), 1, Drain(asyncio.Event().wait, GRACE)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nothing_works_after_close(queue: TaskQueue, operation: str) -> None:
    await queue.close()
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](queue)


@pytest.mark.parametrize("operation", ["publish", "depth", "probe"])
async def test_nothing_works_before_start(make_queue: Callable[[], TaskQueue], operation: str) -> None:
    with pytest.raises(QueueUnavailable):
        await OPERATIONS[operation](make_queue())


async def test_start_and_close_may_be_repeated(queue: TaskQueue) -> None:
    await queue.start()
    await queue.probe()
    await queue.close()
    await queue.close()


async def test_a_queue_that_was_never_started_can_be_closed(make_queue: Callable[[], TaskQueue]) -> None:
    await make_queue().close()


async def test_close_ends_a_consumer(queue: TaskQueue) -> None:
    await publish(queue, 1)
    handler = recorder(shut=True)
    async with consuming(queue, handler, grace=60.0) as consumer:
        await eventually(lambda: handler.running == 1)
        await queue.close()
        async with asyncio.timeout(5):
            await asyncio.wait({consumer.task})
    assert len(handler.cancelled) == 1
