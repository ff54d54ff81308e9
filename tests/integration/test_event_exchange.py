"""The exchange for other services on a real broker that is restarted, disconnected and changed by others."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from aio_pika import DeliveryMode, ExchangeType
from structlog.testing import capture_logs

from harness.broker import channel_to, ready
from harness.exchange import bind, encoded, messages, publish_once_it_works, started_exchange
from harness.proxy import Mode, Proxy
from harness.servers import RabbitMQServer
from harness.waiting import eventually
from image_service.errors import QueueUnavailable
from image_service.queue.rabbitmq import RabbitMQExchange

FULL_AT_ONE: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}


@pytest.fixture
def name() -> str:
    return f"exchange-{uuid4().hex}"


async def test_bound_queues_get_the_events_of_their_topics_in_order(rabbitmq_url: str, name: str) -> None:
    events = [encoded(str(subject), number) for number in range(3) for subject in range(50)]
    async with started_exchange(rabbitmq_url, name) as exchange:
        await exchange.publish([encoded("nobody wants it")])
        await bind(rabbitmq_url, name, name, "image.done")
        await exchange.publish([*events, encoded("another topic", topic="image.failed")])
    found = await messages(rabbitmq_url, name, len(events))
    assert [message.message_id for message in found] == [event.id for event in events]
    assert (found[0].body, found[0].content_type) == (events[0].body, "application/cloudevents+json")
    assert {message.delivery_mode for message in found} == {DeliveryMode.PERSISTENT}
    assert await ready(rabbitmq_url, name) == 0


async def test_event_is_not_sent_if_one_before_with_its_subject_is_refused(rabbitmq_url: str, name: str) -> None:
    async with started_exchange(rabbitmq_url, name) as exchange:
        await bind(rabbitmq_url, name, name, **FULL_AT_ONE)
        with pytest.raises(QueueUnavailable):
            await exchange.publish([encoded("a", 0), encoded("b", 0), encoded("a", 1), encoded("b", 1)])
        (first,) = await messages(rabbitmq_url, name, 1)
        assert first.message_id == "evt_a_0"
        assert await ready(rabbitmq_url, name) == 0, "nothing was sent after the refusal"


async def test_events_survive_a_restart_of_the_broker_and_go_on_after_it(
    own_rabbitmq: RabbitMQServer, name: str
) -> None:
    async with started_exchange(own_rabbitmq.url, name) as exchange:
        await bind(own_rabbitmq.url, name, name)
        await exchange.publish([encoded("a", 0)])
        await asyncio.to_thread(own_rabbitmq.restart)
        await publish_once_it_works(exchange, [encoded("a", 1)])
    found = [message.message_id for message in await messages(own_rabbitmq.url, name, 2)]
    assert found == ["evt_a_0", "evt_a_1"]


async def test_deleted_exchange_is_declared_again(rabbitmq_url: str, name: str) -> None:
    async with started_exchange(rabbitmq_url, name) as exchange:
        async with channel_to(rabbitmq_url) as channel:
            await channel.exchange_delete(name)
        with pytest.raises(QueueUnavailable):
            await exchange.publish([encoded("a")])
        await publish_once_it_works(exchange, [encoded("a")])


async def test_broker_that_does_not_answer_in_time_is_left(rabbitmq_url: str, name: str) -> None:
    async with (
        Proxy.before(rabbitmq_url) as proxy,
        started_exchange(proxy.url(rabbitmq_url), name, publish_limit=0.5) as exchange,
    ):
        proxy.switch(Mode.BLACK_HOLE)
        with pytest.raises(QueueUnavailable):
            await exchange.publish([encoded("a")])
        connections = proxy.accepted
        proxy.switch(Mode.PASS)
        await publish_once_it_works(exchange, [encoded("a")])
        assert proxy.accepted > connections, "what the first connection still holds does not follow"


async def test_exchange_of_another_type_is_refused_with_a_reason(rabbitmq_url: str, name: str) -> None:
    async with channel_to(rabbitmq_url) as channel:
        await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
    exchange = RabbitMQExchange(rabbitmq_url, name)
    with capture_logs() as log:
        await exchange.start()
        try:
            await eventually(lambda: any("broker unavailable" in entry["event"] for entry in log))
            with pytest.raises(QueueUnavailable, match=r"exchange of this name exists with other arguments.*'type'"):
                await exchange.publish([encoded("a")])
        finally:
            await exchange.close()
    reason = next(entry["reason"] for entry in log if entry["event"] == "broker unavailable")
    assert "delete it or use another name" in reason
