"""The contract of ``ports.EventSignal``, for every adapter; and RabbitMQ's between processes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import uuid4

import pytest
from aio_pika.exceptions import ChannelPreconditionFailed

from harness.broker import RECOVERY, channel_to
from harness.processes import free_port
from harness.proxy import Proxy
from harness.waiting import eventually, wait_for
from image_service.queue.rabbitmq import RabbitMQSignal
from image_service.queue.rabbitmq import signal as module
from image_service.queue.signal import LocalSignal

MakeSignal = Callable[[str], RabbitMQSignal]


@pytest.fixture
async def make_signal() -> AsyncIterator[MakeSignal]:
    """Makes signals of one service, each as a process of it has one."""
    name, made = f"contract-{uuid4().hex}", list[RabbitMQSignal]()

    def make(url: str) -> RabbitMQSignal:
        made.append(RabbitMQSignal(url, name))
        return made[-1]

    yield make
    for each in made:
        await wait_for(each.close())


async def arrives(sender: LocalSignal, heard: asyncio.Event) -> None:
    """Notify until it is heard: a message may be lost while the receiver connects."""

    async def notified() -> bool:
        sender.notify()
        await asyncio.sleep(0.05)
        return heard.is_set()

    heard.clear()
    await eventually(notified, timeout=RECOVERY)


@pytest.mark.parametrize("kind", ["local", "rabbitmq", "unavailable"])
async def test_listeners_of_the_same_process_are_called_at_once(
    kind: str, make_signal: MakeSignal, request: pytest.FixtureRequest
) -> None:
    if kind == "local":
        signal = LocalSignal()
    elif kind == "rabbitmq":
        signal = make_signal(request.getfixturevalue("rabbitmq_url"))
    else:
        signal = make_signal(f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    calls = [0, 0]

    def call(number: int) -> None:
        calls[number] += 1

    stop = signal.listen(lambda: call(0))
    signal.listen(lambda: call(1))
    signal.notify()
    assert calls == [1, 1]
    stop()
    signal.notify()
    assert calls == [1, 2]


async def test_other_processes_are_notified(rabbitmq_url: str, make_signal: MakeSignal) -> None:
    sender, receivers = make_signal(rabbitmq_url), [make_signal(rabbitmq_url) for _ in range(2)]
    heard = [asyncio.Event() for _ in receivers]
    for receiver, event in zip(receivers, heard, strict=True):
        receiver.listen(event.set)
    for event in heard:
        await arrives(sender, event)
    for event in heard:
        event.clear()
    sender.notify()  # a single one is enough once all are connected
    for event in heard:
        await wait_for(event.wait())


async def test_many_notifications_are_few_messages(rabbitmq_url: str, make_signal: MakeSignal) -> None:
    sender, receiver = make_signal(rabbitmq_url), make_signal(rabbitmq_url)
    heard, times = asyncio.Event(), 0

    def hear() -> None:
        nonlocal times
        times += 1
        heard.set()

    receiver.listen(hear)
    await arrives(sender, heard)
    times = 0
    for _ in range(1000):
        sender.notify()
    await eventually(lambda: times >= 1)
    await arrives(sender, heard)
    assert times < 100


async def test_lost_connections_are_replaced(rabbitmq_url: str, make_signal: MakeSignal) -> None:
    async with Proxy.before(rabbitmq_url) as proxy:
        sender, receiver = make_signal(proxy.url(rabbitmq_url)), make_signal(proxy.url(rabbitmq_url))
        heard = asyncio.Event()
        receiver.listen(heard.set)
        await arrives(sender, heard)
        proxy.reset_connections()
        await arrives(sender, heard)


async def test_queue_exists_only_while_there_are_listeners(
    rabbitmq_url: str, make_signal: MakeSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes also recover when the exchange is deleted."""
    monkeypatch.setattr(module, "_LINGER", 0.01)
    sender, receiver = make_signal(rabbitmq_url), make_signal(rabbitmq_url)
    heard = asyncio.Event()

    async def deleted_unused_exchange() -> bool:
        with suppress(ChannelPreconditionFailed):
            async with channel_to(rabbitmq_url) as channel:
                exchange = await channel.get_exchange(sender._name)
                await exchange.delete(if_unused=True)
                return True
        return False

    for _ in range(2):
        stop = receiver.listen(heard.set)
        await arrives(sender, heard)
        assert not await deleted_unused_exchange()
        stop()
        await eventually(deleted_unused_exchange)
