"""The RabbitMQ queue on a real broker that is restarted, killed, disconnected and changed by others."""

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import pytest
from aio_pika import Message
from aio_pika.exceptions import ChannelPreconditionFailed
from structlog.testing import capture_logs

from harness.broker import RECOVERY, ReceivedIds, channel_to, consuming, eventually_ready, publish, start, started
from harness.pace import Stopwatch
from harness.processes import free_port
from harness.proxy import Mode, Proxy
from harness.servers import RabbitMQServer
from harness.waiting import eventually, wait_for
from image_service.domain.lane import Lane
from image_service.errors import DatabaseUnavailable, QueueUnavailable
from image_service.ports import Delivery, Drain
from image_service.queue import handling
from image_service.queue.rabbitmq import RabbitMQDeadLetters, RabbitMQQueue

PUBLISH_LIMIT = 5.5
ANSWER_LIMIT = 2.5
AT_ONCE = 0.5


@pytest.fixture
def name() -> str:
    return f"integration-{uuid4().hex}"


@pytest.fixture(scope="module")
def durable_queue(private_rabbitmq: RabbitMQServer) -> str:
    """The name of a queue that survives a kill of the broker.

    RabbitMQ 3.10 registers a new quorum queue's log with a delay: killed in that time, it knows the queue afterwards,
    confirms its declaration, and never serves it. A regular restart completes the registration.
    """
    if not private_rabbitmq.running:
        private_rabbitmq.start()
    name = f"integration-{uuid4().hex}"

    async def declare() -> None:
        async with started(private_rabbitmq.url, name) as queue:
            await queue.depth()

    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, declare()).result()
    private_rabbitmq.restart()
    return name


async def publish_once_it_works(queue: RabbitMQQueue) -> UUID:
    async with asyncio.timeout(RECOVERY):
        while True:
            try:
                return await publish(queue)
            except QueueUnavailable:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    watch = Stopwatch()
    yield
    assert watch.seconds < seconds


async def delete(url: str, name: str) -> None:
    async with channel_to(url) as channel:
        await channel.queue_delete(name)


async def delete_and_create(url: str, name: str) -> None:
    """Delete and create a queue before the broker cancels the consumers of the old one."""
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{name}.dead",
    }
    async with channel_to(url) as channel:
        await channel.queue_delete(name)
        await channel.declare_queue(name, durable=True, arguments=arguments)


async def test_messages_survive_a_restart_and_a_kill_of_the_broker(
    own_rabbitmq: RabbitMQServer, durable_queue: str
) -> None:
    async with started(own_rabbitmq.url, durable_queue) as queue:
        published = {await publish(queue) for _ in range(20)}
        await asyncio.to_thread(own_rabbitmq.restart)
        published.add(await publish_once_it_works(queue))
        await asyncio.to_thread(own_rabbitmq.kill)
        with pytest.raises(QueueUnavailable):
            async with within(AT_ONCE):
                await eventually_lost(queue)
        await asyncio.to_thread(own_rabbitmq.start)
        published.add(await publish_once_it_works(queue))
        seen = ReceivedIds()
        async with consuming(queue, seen, slots=3):
            await eventually(lambda: published <= set(seen))


async def eventually_lost(queue: RabbitMQQueue) -> None:
    """Raise once the queue has noticed the lost connection, a moment after the broker's end."""
    while True:
        await queue.depth()


async def test_consumer_resumes_after_a_broker_kill_and_handlers_continue(
    own_rabbitmq: RabbitMQServer, durable_queue: str
) -> None:
    gate = asyncio.Event()
    running = most = 0
    started_ids: list[UUID] = []
    finished: list[UUID] = []

    async def handler(delivery: Delivery) -> None:
        nonlocal running, most
        started_ids.append(delivery.image_id)
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        finished.append(delivery.image_id)

    async with started(own_rabbitmq.url, durable_queue) as queue, consuming(queue, handler, slots=2):
        before = {await publish(queue) for _ in range(3)}
        await eventually(lambda: running == 2)
        await asyncio.to_thread(own_rabbitmq.kill)
        await asyncio.to_thread(own_rabbitmq.start)
        after = await publish_once_it_works(queue)
        with capture_logs() as logs:
            # The consumer has reconnected, holds as many messages as before, and starts none of them.
            await eventually_depth(queue, 2)
            assert running == 2
            gate.set()
            await eventually(lambda: before | {after} <= set(finished), timeout=RECOVERY)
        assert most == 2
        assert len(finished) == 6, "the two whose connection was lost were delivered again"
        assert any("acknowledgement not sent" in log["event"] for log in logs)
        await eventually_depth(queue, 0)


async def eventually_depth(queue: RabbitMQQueue, expected: int) -> None:
    async with asyncio.timeout(RECOVERY):
        while (await queue.depth())[Lane.NORMAL] != expected:  # noqa: ASYNC110 - a broker's counter offers no event to wait for
            await asyncio.sleep(0.05)


async def test_connects_to_a_broker_that_starts_later(own_rabbitmq: RabbitMQServer, name: str) -> None:
    await asyncio.to_thread(own_rabbitmq.stop)
    seen = ReceivedIds()
    async with within(RECOVERY * 2), started(own_rabbitmq.url, name) as queue, consuming(queue, seen):
        for operation in (publish, RabbitMQQueue.depth):
            async with within(ANSWER_LIMIT):
                with pytest.raises(QueueUnavailable):
                    await operation(queue)
        await asyncio.to_thread(own_rabbitmq.start)
        published = await publish_once_it_works(queue)
        await eventually(lambda: seen == [published], timeout=RECOVERY)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://unknown:SECRET@{address}/",
        "amqp://guest:guest@{address}/no-such-vhost-SECRET",
        "amqp://guest:SE/CRET@{address}/",
        "http://guest:SECRET@{address}/",
        "not a url SECRET",
        "",
    ],
)
async def test_wrong_url_is_retried_and_logged_without_the_password(rabbitmq_url: str, name: str, url: str) -> None:
    with capture_logs() as logs:
        async with started(url.format(address=urlsplit(rabbitmq_url).netloc.rpartition("@")[2]), name) as queue:
            with pytest.raises(QueueUnavailable):
                await queue.publish(Delivery(image_id=uuid4()))
            await eventually(lambda: max(log.get("failures", 0) for log in logs) >= 2)
    warnings = [log for log in logs if log["log_level"] == "warning"]
    assert [log["failures"] for log in warnings] == [2**n for n in range(len(warnings))]
    assert "SECRET" not in str(logs).replace("no-such-vhost-SECRET", "")
    assert "CRET@" not in str(logs)


async def test_password_in_the_url_is_decoded(rabbitmq_url: str, name: str) -> None:
    parts = urlsplit(rabbitmq_url)
    escaped = urlunsplit(parts._replace(netloc=parts.netloc.replace("guest:guest", "%67uest:gues%74")))
    async with started(escaped, name) as queue:
        await queue.depth()


async def test_queues_are_declared_with_these_arguments(rabbitmq_url: str, name: str) -> None:
    async with started(rabbitmq_url, name) as queue:
        await queue.depth()
    lane: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{name}.dead",
    }
    agreed: dict[str, dict[str, Any]] = {
        f"{name}.dead": {"x-queue-type": "quorum", "x-max-length": 10_000, "x-delivery-limit": 2**31 - 1},
        name: lane,
        f"{name}.express": lane,
        f"{name}.backfill": lane,
    }
    for queue_name, arguments in agreed.items():
        async with channel_to(rabbitmq_url) as channel:
            await channel.declare_queue(queue_name, durable=True, arguments=arguments)
        for missing in arguments.keys() - {"x-queue-type"}:
            fewer = {key: value for key, value in arguments.items() if key != missing}
            with pytest.raises(ChannelPreconditionFailed):
                async with channel_to(rabbitmq_url) as channel:
                    await channel.declare_queue(queue_name, durable=True, arguments=fewer)


async def test_dead_letter_queue_with_other_arguments_is_accepted(rabbitmq_url: str, name: str) -> None:
    async with channel_to(rabbitmq_url) as channel:
        earlier: dict[str, Any] = {"x-queue-type": "quorum", "x-max-length": 10_000}
        await channel.declare_queue(f"{name}.dead", durable=True, arguments=earlier)
        await channel.default_exchange.publish(Message(b"garbage"), f"{name}.dead")
    with capture_logs() as logs:
        async with started(rabbitmq_url, name) as queue:
            await queue.depth()
            await publish(queue)
    assert any(log["event"] == "messages were dead-lettered" for log in logs)


async def test_messages_of_old_and_new_versions_share_a_queue(rabbitmq_url: str, name: str) -> None:
    """As during a rolling update of the service."""
    newer = [uuid4() for _ in range(4)]
    bodies = [
        f'{{"v":2,"image_id":"{newer[0]}","priority":7}}',
        f'{{"image_id":"{newer[1]}","v":3,"recipe":{{"fingerprint":"f00d"}}}}',
        f'{{"v":1,"image_id":"{newer[2]}","tenant":null}}',
        f'{{"v":1000000,"image_id":"{newer[3]}"}}',
    ]
    seen = ReceivedIds()
    async with started(rabbitmq_url, name) as queue, consuming(queue, seen, slots=3):
        published = {await publish(queue)}
        async with channel_to(rabbitmq_url) as channel:
            for body in bodies:
                message = Message(body.encode(), headers={"unheard-of": True}, type="later")
                await channel.default_exchange.publish(message, name)
                published.add(await publish(queue))
        await eventually(lambda: len(seen) == 9)
        await eventually_depth(queue, 0)
    assert set(seen) == published | set(newer)
    await eventually_ready(rabbitmq_url, f"{name}.dead", 0)


async def test_lane_queue_with_other_arguments_is_refused_with_a_reason(rabbitmq_url: str, name: str) -> None:
    async with channel_to(rabbitmq_url) as channel:
        await channel.declare_queue(name, durable=True)
    with capture_logs() as logs:
        async with started(rabbitmq_url, name) as queue:
            with pytest.raises(QueueUnavailable):
                await queue.depth()
            await eventually(lambda: any("other arguments" in log.get("reason", "") for log in logs))


async def test_cause_of_a_refused_connection_is_logged_without_the_password(rabbitmq_url: str, name: str) -> None:
    url = urlsplit(rabbitmq_url)
    account, address = f"{url.username}:{url.password}", f"{url.hostname}:{url.port}"
    refused = {
        f"amqp://{account}@{address}/missing": f"the broker refused the virtual host: .* \\(at {address}/missing\\)",
        f"amqp://{url.username}:wrong-secret@{address}/": "ProbableAuthenticationError: ACCESS_REFUSED",
        f"amqp://{account}@{url.hostname}:1/": "ConnectionRefusedError ECONNREFUSED: .*:1",
        f"amqp://{account}@no-such-host.invalid/": "gaierror: .*no-such-host.invalid",
    }
    for wrong, cause in refused.items():
        with capture_logs() as logs:
            async with started(wrong, name) as queue:
                with pytest.raises(QueueUnavailable, match=cause):
                    await queue.depth()
        assert re.match(cause, logs[0]["reason"])
        assert "wrong-secret" not in str(logs)


async def test_message_is_persistent_and_has_version_and_request_id(rabbitmq_url: str, name: str) -> None:
    image_id = uuid4()
    async with started(rabbitmq_url, name) as queue:
        await queue.publish(Delivery(image_id=image_id, request_id="r-1"))
    async with channel_to(rabbitmq_url) as channel:
        message = await (await channel.get_queue(name)).get(no_ack=True)
    assert message is not None
    assert message.body == f'{{"v":1,"image_id":"{image_id}"}}'.encode()
    assert message.correlation_id == "r-1"
    assert message.delivery_mode == 2
    assert message.content_type == "application/json"


async def test_publish_recreates_a_deleted_queue(rabbitmq_url: str, name: str) -> None:
    async with started(rabbitmq_url, name) as queue:
        await publish(queue)
        await delete(rabbitmq_url, name)
        await publish(queue)
        await publish(queue)
        assert (await queue.depth())[Lane.NORMAL] == 2
        await delete(rabbitmq_url, name)
        assert (await queue.depth())[Lane.NORMAL] == 0


async def test_concurrent_publishes_recreate_a_deleted_queue(rabbitmq_url: str, name: str) -> None:
    async with started(rabbitmq_url, name) as queue:
        await queue.depth()
        await delete(rabbitmq_url, name)
        await asyncio.gather(*(publish(queue) for _ in range(20)))
        await eventually_depth(queue, 20)


async def test_consumer_survives_the_deletion_of_its_queue(rabbitmq_url: str, name: str) -> None:
    seen = ReceivedIds()
    async with started(rabbitmq_url, name) as queue, consuming(queue, seen):
        first = await publish(queue)
        await eventually(lambda: seen == [first])
        await delete(rabbitmq_url, name)
        second = await publish(queue)
        await eventually(lambda: seen == [first, second])


async def test_deleted_queue_is_recreated_after_its_consumers_were_cancelled(rabbitmq_url: str, name: str) -> None:
    """RabbitMQ 3.10 loses track of them otherwise. They would reconnect only after a minute."""
    first, second = ReceivedIds(), ReceivedIds()
    async with (
        started(rabbitmq_url, name) as queue,
        consuming(queue, first),
        consuming(queue, second),
        started(rabbitmq_url, name) as other,
    ):
        before = await publish(queue)
        await eventually(lambda: before in first + second)
        await delete(rabbitmq_url, name)
        await other.depth()
        published = {await publish(queue) for _ in range(20)}
        await eventually(lambda: published <= {*first, *second}, timeout=5)


async def test_idle_consumer_reconnects_if_the_broker_lost_track_of_it(rabbitmq_url: str, name: str) -> None:
    queue = RabbitMQQueue(rabbitmq_url, queue_name=name, idle_reconnect=1.0)
    await start(queue)
    seen = ReceivedIds()
    async with consuming(queue, seen):
        first = await publish(queue)
        await eventually(lambda: seen == [first])
        await delete_and_create(rabbitmq_url, name)
        second = await publish(queue)
        await eventually(lambda: second in seen)
    await queue.close()


async def test_consumer_reconnects_soon_if_waiting_messages_do_not_arrive(rabbitmq_url: str, name: str) -> None:
    queue = RabbitMQQueue(rabbitmq_url, queue_name=name, idle_check=0.2, idle_reconnect=3600)
    await start(queue)
    seen = ReceivedIds()
    async with consuming(queue, seen):
        first = await publish(queue)
        await eventually(lambda: seen == [first])
        await delete_and_create(rabbitmq_url, name)
        more = [await publish(queue) for _ in range(20)]
        await eventually(lambda: set(more) <= set(seen))
    await queue.close()


async def test_undecodable_message_is_dead_lettered(rabbitmq_url: str, name: str) -> None:
    seen = ReceivedIds()
    bodies = {b"garbage", b'{"v":2,"image":"01900000-0000-7000-8000-000000000001"}', b"", b"\xff\xfe"}
    with capture_logs() as logs:
        async with started(rabbitmq_url, name) as queue, consuming(queue, seen):
            await queue.depth()
            async with channel_to(rabbitmq_url) as channel:
                for body in bodies:
                    await channel.default_exchange.publish(Message(body), name)
            good = await publish(queue)
            await eventually(lambda: seen == [good])
            await eventually_ready(rabbitmq_url, f"{name}.dead", len(bodies))
            await queue.depth()
            await queue.depth()
    errors = [log["event"] for log in logs if log["log_level"] == "error"]
    assert errors.count("undecodable message goes to the dead-letter queue") == len(bodies)
    assert errors.count("messages were dead-lettered") == 1
    async with channel_to(rabbitmq_url) as channel:
        dead = await channel.get_queue(f"{name}.dead")
        assert {(await dead.get(no_ack=True)).body for _ in bodies} == bodies


async def test_message_is_dead_lettered_after_the_delivery_limit(rabbitmq_url: str, name: str) -> None:
    tries = 0

    async def handler(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        raise QueueUnavailable

    queue = RabbitMQQueue(rabbitmq_url, queue_name=name, requeue_delay=0.0)
    await start(queue)
    async with consuming(queue, handler):
        await publish(queue)
        await eventually_ready(rabbitmq_url, f"{name}.dead", 1)
    await queue.close()
    assert tries == 21


async def test_an_outage_many_retries_long_leaves_no_dead_letter(
    rabbitmq_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "_MAX_REQUEUE_DELAY", 0.05)  # instead of ten seconds
    tries = 0
    done = asyncio.Event()

    async def handler(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        if tries <= 40:  # twice the delivery limit
            raise DatabaseUnavailable
        done.set()

    async with started(rabbitmq_url, name) as queue, consuming(queue, handler):
        await publish_once_it_works(queue)
        await wait_for(done.wait(), RECOVERY)
        await queue.depth()
        assert queue.dead_letters == 0


async def test_black_hole_times_out_and_then_fails_fast_until_it_ends(rabbitmq_url: str, name: str) -> None:
    async with Proxy.before(rabbitmq_url) as proxy, started(proxy.url(rabbitmq_url), name) as queue:
        await queue.depth()
        proxy.switch(Mode.BLACK_HOLE)
        async with within(ANSWER_LIMIT):
            with pytest.raises(QueueUnavailable):
                await queue.depth()
        async with within(PUBLISH_LIMIT):
            results = await asyncio.gather(*(publish(queue) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, QueueUnavailable) for result in results)
        async with within(AT_ONCE):
            for _ in range(10):
                with pytest.raises(QueueUnavailable):
                    await publish(queue)
        proxy.switch(Mode.PASS)
        await publish_once_it_works(queue)
        await queue.depth()


async def test_close_is_bounded_in_a_black_hole(rabbitmq_url: str, name: str) -> None:
    async with Proxy.before(rabbitmq_url) as proxy, started(proxy.url(rabbitmq_url), name) as queue:
        await publish(queue)
        held = asyncio.Event()

        async def handler(_: Delivery) -> None:
            held.set()
            await asyncio.Event().wait()

        consumer = asyncio.create_task(queue.consume(handler, 1, Drain(asyncio.Future, 5.0)))
        await wait_for(held.wait(), 10)
        proxy.switch(Mode.BLACK_HOLE)
        async with within(8.0):
            await queue.close()
            await consumer


async def test_heartbeat_ends_a_connection_to_a_black_hole(rabbitmq_url: str, name: str) -> None:
    seen = ReceivedIds()
    async with Proxy.before(rabbitmq_url) as proxy, started(rabbitmq_url, name) as queue:
        behind = RabbitMQQueue(f"{proxy.url(rabbitmq_url)}?heartbeat=1", queue_name=name)
        async with consuming(behind, seen):
            first = await publish(queue)
            await eventually(lambda: seen == [first])
            proxy.switch(Mode.BLACK_HOLE)
            second = await publish(queue)
            accepted = proxy.accepted
            await eventually(lambda: proxy.accepted > accepted, timeout=RECOVERY)
            proxy.switch(Mode.PASS)
            await eventually(lambda: second in seen, timeout=RECOVERY)


async def test_reset_connection_is_replaced(rabbitmq_url: str, name: str) -> None:
    seen = ReceivedIds()
    async with (
        Proxy.before(rabbitmq_url) as proxy,
        started(proxy.url(rabbitmq_url), name) as queue,
        consuming(queue, seen),
    ):
        published = {await publish(queue)}
        proxy.switch(Mode.RESET)
        with pytest.raises(QueueUnavailable):
            await eventually_lost(queue)
        proxy.switch(Mode.PASS)
        published.add(await publish_once_it_works(queue))
        await eventually(lambda: published <= set(seen), timeout=RECOVERY)


async def test_slow_network_is_no_outage(rabbitmq_url: str, name: str) -> None:
    seen = ReceivedIds()
    async with Proxy.before(rabbitmq_url) as proxy:
        proxy.switch(Mode.DELAY)
        async with started(proxy.url(rabbitmq_url), name) as queue, consuming(queue, seen):
            published = await publish_once_it_works(queue)
            await eventually(lambda: seen == [published])


async def test_broker_alarm_makes_publishers_fail_fast_until_it_ends(own_rabbitmq: RabbitMQServer, name: str) -> None:
    seen = ReceivedIds()
    async with started(own_rabbitmq.url, name) as queue, consuming(queue, seen):
        before = await publish_once_it_works(queue)
        await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            async with within(PUBLISH_LIMIT):
                with pytest.raises(QueueUnavailable):
                    await publish(queue)
            for operation in (publish, RabbitMQQueue.depth):
                async with within(AT_ONCE):
                    with pytest.raises(QueueUnavailable):
                        await operation(queue)
            assert before in seen, "consumers are not blocked"
        finally:
            await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "512MiB")
        after = await publish_once_it_works(queue)
        await eventually(lambda: {before, after} <= set(seen), timeout=RECOVERY)


async def test_dead_letters_can_be_listed_but_not_retried_during_a_broker_alarm(
    own_rabbitmq: RabbitMQServer, name: str
) -> None:
    letters = RabbitMQDeadLetters(own_rabbitmq.url, name)
    async with started(own_rabbitmq.url, name) as queue:
        await publish_once_it_works(queue)
    async with channel_to(own_rabbitmq.url) as channel:
        await (await (await channel.get_queue(name)).get()).reject(requeue=False)
    await eventually_ready(own_rabbitmq.url, f"{name}.dead", 1)
    listed = await letters.list(10)
    await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        assert await letters.list(10) == listed
        async with within(9.0):
            with pytest.raises(QueueUnavailable):
                await letters.retry()
    finally:
        await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "512MiB")
    await eventually_ready(own_rabbitmq.url, f"{name}.dead", 1)
    assert (await letters.retry()).handed_over == 1


async def test_closed_port_fails_at_once(name: str) -> None:
    async with started(f"amqp://guest:guest@127.0.0.1:{free_port()}/", name) as queue:
        for operation in (publish, RabbitMQQueue.depth):
            async with within(AT_ONCE):
                with pytest.raises(QueueUnavailable):
                    await operation(queue)
