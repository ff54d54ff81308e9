"""The signal that events have been recorded, to all processes of the service."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from image_service.queue.rabbitmq.connection import BrokerConnection, Session
from image_service.queue.rabbitmq.timeouts import ignore_errors, within
from image_service.queue.signal import LocalSignal

_SENT_EVERY: Final = 0.05
"""Seconds between two messages that a process sends, while there are many; the first one is sent at once."""
_TAKEN_EVERY: Final = 0.01
"""Seconds between two that it takes, however many processes send them."""
_TIMEOUT: Final = 5.0
_LINGER: Final = 60.0
"""Seconds for which messages are received after the last listener is gone: another one may come soon."""
_QUEUE: Final[dict[str, Any]] = {"exclusive": True, "auto_delete": True, "arguments": {"x-max-length": 1}}
"""A process's own. While that is busy with one message, one other stands for all that follow."""


class RabbitMQSignal(LocalSignal):
    """``ports.EventSignal`` by a fanout exchange. Messages have no content, and may be lost.

    It connects when it is first used, and again after a lost connection. A process has a queue only while it listens.

    Args:
        url: The broker's.
        queue_name: Prefix of the exchange's name.
    """

    def __init__(self, url: str, queue_name: str = "images") -> None:
        super().__init__()
        self._name = f"{queue_name}.signal"
        self._connection = BrokerConnection(url, f"image-service signal {queue_name}", self._set_up)
        self._session: Session | None = None
        """The newest one; it may be lost."""
        self._exchange: AbstractExchange | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connecting = self._sending = self._closed = False
        self._unsent = False
        """Whether there is something to send."""
        self._end_linger: asyncio.TimerHandle | None = None

    def notify(self) -> None:
        """Call the listeners of this process, and soon those of the others."""
        super().notify()
        self._unsent = True
        self._connect()
        self._send()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Add a listener; returns what removes it."""
        remove = super().listen(listener)
        self._connect()
        if self._end_linger is not None:
            self._end_linger.cancel()
            self._end_linger = None
        elif self._session is not None and self._session.stop_delivery is None:
            self._start(self._receive(self._session))

        def end() -> None:
            remove()
            if not self._listeners and not self._closed:
                self._end_linger = asyncio.get_running_loop().call_later(_LINGER, self._stop_receiving)

        return end

    async def close(self) -> None:
        """Disconnect."""
        self._closed = True
        if self._end_linger is not None:
            self._end_linger.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connect(self) -> None:
        if not self._connecting and not self._closed:
            self._connecting = True
            self._start(self._connection.keep_open())

    async def _set_up(self, session: Session) -> None:
        await session.open(publisher_confirms=False)
        await session.channel.set_qos(prefetch_count=1)
        self._exchange = await session.channel.declare_exchange(self._name, ExchangeType.FANOUT, durable=False)
        self._session = session
        if self._listeners or self._end_linger is not None:
            await self._receive(session)
        self._send()

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def _receive(self, session: Session) -> None:
        """Have messages delivered, unless they are already."""
        if session.stop_delivery is not None or self._exchange is None:
            return
        consuming: asyncio.Future[Callable[[], Awaitable[object]]] = asyncio.get_running_loop().create_future()

        async def stop() -> None:
            await (await consuming)()

        session.stop_delivery = stop
        try:
            queue = await session.channel.declare_queue(**_QUEUE)
            await queue.bind(self._exchange)
            consuming.set_result(partial(queue.cancel, await queue.consume(self._received)))
        except Exception:  # noqa: BLE001 — whatever it is, a new session is needed
            consuming.cancel()
            session.on_close()
        else:
            super().notify()  # messages before this one were not received

    async def _received(self, message: AbstractIncomingMessage) -> None:
        super().notify()
        await asyncio.sleep(_TAKEN_EVERY)
        with suppress(Exception):  # the connection is lost, and the queue with it
            await message.ack()

    def _stop_receiving(self) -> None:
        self._end_linger = None
        session = self._session
        if session is not None and session.stop_delivery is not None:
            stop, session.stop_delivery = session.stop_delivery, None
            self._start(ignore_errors(stop()))

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if self._unsent and not self._sending and not self._closed and self._session is not None:
            self._sending = True
            self._start(self._send_all())

    async def _send_all(self) -> None:
        """Send at once, and again at the end of each interval in which there was something to send."""
        try:
            while self._unsent and self._session is not None and not self._session.lost.is_set():
                self._unsent = False
                await ignore_errors(within(_TIMEOUT, self._publish()))
                await asyncio.sleep(_SENT_EVERY)
        finally:
            self._sending = False

    async def _publish(self) -> None:
        if self._exchange is not None:
            message = Message(b"", delivery_mode=DeliveryMode.NOT_PERSISTENT)
            await self._exchange.publish(message, "", mandatory=False)  # there may be no listener
