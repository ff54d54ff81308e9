"""Background handlers wait for foreground handlers, up to a limit."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from harness.fakes import LONG_TIMEOUT
from harness.waiting import eventually
from image_service.domain.lane import Lane
from image_service.ports import Delivery, Handler
from image_service.worker.idle_gate import IdleGate

IMAGE_ID = UUID("01900000-0000-7000-8000-000000000001")


class Work:
    """A handler that ends, or fails, when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Delivery] = []
        self._ends: list[asyncio.Future[None]] = []

    async def handle(self, delivery: Delivery) -> None:
        end = asyncio.get_running_loop().create_future()
        self.begun.append(delivery)
        self._ends.append(end)
        await end

    def end(self, which: int = 0, error: Exception | None = None) -> None:
        """End one of the calls that have begun."""
        if error is None:
            self._ends[which].set_result(None)
        else:
            self._ends[which].set_exception(error)


class Worker:
    """A foreground and a background handler behind one gate."""

    def __init__(self, max_wait: float = LONG_TIMEOUT) -> None:
        self.foreground, self.background = Work(), Work()
        gate = IdleGate()
        self._foreground = gate.foreground(self.foreground.handle)
        self._background = gate.background(self.background.handle, max_wait=max_wait)
        self.tasks: list[asyncio.Task[None]] = []

    def deliver(self, times: int = 1) -> asyncio.Task[None]:
        """One foreground delivery, or several in a row without a pause."""
        return self._start(self._foreground, Lane.NORMAL, times)

    def deliver_in_background(self) -> asyncio.Task[None]:
        return self._start(self._background, Lane.BACKFILL)

    def _start(self, handler: Handler, lane: Lane, times: int = 1) -> asyncio.Task[None]:
        async def handle() -> None:
            for _ in range(times):
                await handler(Delivery(image_id=IMAGE_ID, lane=lane))

        self.tasks.append(asyncio.create_task(handle()))
        return self.tasks[-1]


async def settled() -> None:
    """Let the event loop run everything that can run."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    yield worker
    for task in worker.tasks:
        task.cancel()
    await asyncio.gather(*worker.tasks, return_exceptions=True)


async def test_background_starts_at_once_while_idle(worker: Worker) -> None:
    task = worker.deliver_in_background()
    await settled()
    assert worker.background.begun == [Delivery(image_id=IMAGE_ID, lane=Lane.BACKFILL)]
    worker.background.end()
    await task


async def test_foreground_never_waits(worker: Worker) -> None:
    worker.deliver_in_background()
    await settled()
    for _ in range(3):
        worker.deliver()
    await settled()
    assert worker.foreground.begun == [Delivery(image_id=IMAGE_ID, lane=Lane.NORMAL)] * 3


async def test_background_waits_until_every_foreground_handler_ends(worker: Worker) -> None:
    for _ in range(3):
        worker.deliver()
    await settled()
    worker.deliver_in_background()
    for which in (1, 0):
        worker.foreground.end(which)
        await settled()
        assert worker.background.begun == []
    worker.foreground.end(2)
    await settled()
    assert len(worker.background.begun) == 1


async def test_background_handlers_run_concurrently(worker: Worker) -> None:
    for _ in range(2):
        worker.deliver_in_background()
    await settled()
    assert len(worker.background.begun) == 2


async def test_background_waits_through_consecutive_foreground_handlers(worker: Worker) -> None:
    worker.deliver(times=5)
    await settled()
    worker.deliver_in_background()
    for each in range(5):
        await settled()
        assert worker.background.begun == []
        worker.foreground.end(each)
    await settled()
    assert len(worker.background.begun) == 1


async def test_gate_closes_and_opens_repeatedly(worker: Worker) -> None:
    for number in range(3):
        worker.deliver()
        await settled()
        worker.deliver_in_background()
        await settled()
        assert len(worker.background.begun) == number
        worker.foreground.end(number)
        await settled()
        assert len(worker.background.begun) == number + 1


async def test_failed_or_cancelled_foreground_handler_no_longer_counts(worker: Worker) -> None:
    failing, cancelled = worker.deliver(), worker.deliver()
    await settled()
    worker.deliver_in_background()
    worker.foreground.end(0, RuntimeError("a defect"))
    await settled()
    with pytest.raises(RuntimeError, match="a defect"):
        failing.result()
    assert worker.background.begun == [], "the other one still runs"
    cancelled.cancel()
    await settled()
    assert cancelled.cancelled()
    assert len(worker.background.begun) == 1


async def test_cancelled_background_handler_never_starts(worker: Worker) -> None:
    worker.deliver()
    await settled()
    waiting = worker.deliver_in_background()
    await settled()
    waiting.cancel()
    await settled()
    assert waiting.cancelled()
    worker.foreground.end()
    await settled()
    assert worker.background.begun == []


async def test_background_error_is_raised(worker: Worker) -> None:
    waiting = worker.deliver_in_background()
    await settled()
    worker.background.end(error=TimeoutError("its own"))
    await settled()
    with pytest.raises(TimeoutError, match="its own"):
        waiting.result()


async def test_background_starts_after_max_wait() -> None:
    worker = Worker(max_wait=0.05)
    began = asyncio.get_running_loop().time()
    busy, waiting = worker.deliver(), worker.deliver_in_background()
    await eventually(lambda: worker.background.begun)
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert not busy.done()
    worker.background.end()
    await waiting
    worker.foreground.end()
    await busy
