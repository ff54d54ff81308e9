"""What can wait waits for everything else, though not for ever."""

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
    """A handler whose end, good or bad, the test decides about."""

    def __init__(self) -> None:
        self.begun: list[Delivery] = []
        self._ends: list[asyncio.Future[None]] = []

    async def handle(self, delivery: Delivery) -> None:
        end = asyncio.get_running_loop().create_future()
        self.begun.append(delivery)
        self._ends.append(end)
        await end

    def end(self, which: int = 0, error: Exception | None = None) -> None:
        """Let one of those that have begun come to its end."""
        if error is None:
            self._ends[which].set_result(None)
        else:
            self._ends[which].set_exception(error)


class Worker:
    """Something that presses, and something that can wait."""

    def __init__(self, patience: float = LONG_TIMEOUT) -> None:
        self.pressing, self.patient = Work(), Work()
        leisure = IdleGate()
        self._press = leisure.foreground(self.pressing.handle)
        self._wait = leisure.background(self.patient.handle, patience=patience)
        self.tasks: list[asyncio.Task[None]] = []

    def press(self, times: int = 1) -> asyncio.Task[None]:
        """One delivery, or several of which each is taken as soon as the one before it has ended."""
        return self._start(self._press, Lane.NORMAL, times)

    def wait(self) -> asyncio.Task[None]:
        return self._start(self._wait, Lane.BACKFILL)

    def _start(self, handler: Handler, lane: Lane, times: int = 1) -> asyncio.Task[None]:
        async def handle() -> None:
            for _ in range(times):
                await handler(Delivery(image_id=IMAGE_ID, lane=lane))

        self.tasks.append(asyncio.create_task(handle()))
        return self.tasks[-1]


async def settled() -> None:
    """Everything has happened that can."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    yield worker
    for task in worker.tasks:
        task.cancel()
    await asyncio.gather(*worker.tasks, return_exceptions=True)


async def test_at_leisure_what_can_wait_begins_at_once_and_is_given_its_delivery(worker: Worker) -> None:
    task = worker.wait()
    await settled()
    assert worker.patient.begun == [Delivery(image_id=IMAGE_ID, lane=Lane.BACKFILL)]
    worker.patient.end()
    await task


async def test_what_presses_never_waits(worker: Worker) -> None:
    worker.wait()
    await settled()
    for _ in range(3):
        worker.press()
    await settled()
    assert worker.pressing.begun == [Delivery(image_id=IMAGE_ID, lane=Lane.NORMAL)] * 3


async def test_what_can_wait_waits_until_all_that_presses_has_ended(worker: Worker) -> None:
    for _ in range(3):
        worker.press()
    await settled()
    worker.wait()
    for which in (1, 0):
        worker.pressing.end(which)
        await settled()
        assert worker.patient.begun == []
    worker.pressing.end(2)
    await settled()
    assert len(worker.patient.begun) == 1


async def test_what_can_wait_keeps_nobody_waiting_and_may_run_beside_others_of_its_kind(worker: Worker) -> None:
    for _ in range(2):
        worker.wait()
    await settled()
    assert len(worker.patient.begun) == 2


async def test_one_after_another_without_a_pause_is_no_leisure(worker: Worker) -> None:
    worker.press(times=5)
    await settled()
    worker.wait()
    for each in range(5):
        await settled()
        assert worker.patient.begun == []
        worker.pressing.end(each)
    await settled()
    assert len(worker.patient.begun) == 1


async def test_leisure_comes_and_goes(worker: Worker) -> None:
    for turn in range(3):
        worker.press()
        await settled()
        worker.wait()
        await settled()
        assert len(worker.patient.begun) == turn
        worker.pressing.end(turn)
        await settled()
        assert len(worker.patient.begun) == turn + 1


async def test_what_fails_or_is_cancelled_no_longer_presses(worker: Worker) -> None:
    failing, cancelled = worker.press(), worker.press()
    await settled()
    worker.wait()
    worker.pressing.end(0, RuntimeError("a defect"))
    await settled()
    with pytest.raises(RuntimeError, match="a defect"):
        failing.result()
    assert worker.patient.begun == [], "the other one still runs"
    cancelled.cancel()
    await settled()
    assert cancelled.cancelled()
    assert len(worker.patient.begun) == 1


async def test_a_cancelled_wait_ends_at_once_and_begins_nothing(worker: Worker) -> None:
    worker.press()
    await settled()
    waiting = worker.wait()
    await settled()
    waiting.cancel()
    await settled()
    assert waiting.cancelled()
    worker.pressing.end()
    await settled()
    assert worker.patient.begun == []


async def test_what_can_wait_fails_like_anything_else(worker: Worker) -> None:
    waiting = worker.wait()
    await settled()
    worker.patient.end(error=TimeoutError("its own"))
    await settled()
    with pytest.raises(TimeoutError, match="its own"):
        waiting.result()


async def test_patience_ends_however_busy_the_worker_is() -> None:
    worker = Worker(patience=0.05)
    began = asyncio.get_running_loop().time()
    busy, waiting = worker.press(), worker.wait()
    await eventually(lambda: worker.patient.begun)
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert not busy.done()
    worker.patient.end()
    await waiting
    worker.pressing.end()
    await busy
