"""Retries on outages: how often, for how long, and after which errors. The clock is a fake."""

import pytest

from image_service.errors import DatabaseUnavailable, Outage, StorageUnavailable
from image_service.services.outage_retry import retry_on_outage


class Clock:
    """A clock that only ``sleep`` moves, and a method that retries with it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    async def retry(self, work: "Work", *, budget: float) -> str:
        return await retry_on_outage(work, budget=budget, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Work:
    """Raises the given errors, one per call, and then succeeds."""

    def __init__(self, *errors: Exception, clock: Clock | None = None, seconds: float = 0) -> None:
        self.errors = list(errors)
        self.tries = 0
        self._clock = clock
        self._seconds = seconds

    async def __call__(self) -> str:
        self.tries += 1
        if self._clock is not None:
            self._clock.now += self._seconds
        if self.errors:
            raise self.errors.pop(0)
        return "result"


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_success_is_not_retried(clock: Clock) -> None:
    work = Work()
    assert await clock.retry(work, budget=10) == "result"
    assert work.tries == 1
    assert clock.pauses == []


async def test_outages_are_retried(clock: Clock) -> None:
    work = Work(DatabaseUnavailable(), StorageUnavailable(), Outage())
    assert await clock.retry(work, budget=10) == "result"
    assert work.tries == 4
    assert len(clock.pauses) == 3


async def test_when_the_budget_ends_the_last_outage_is_raised(clock: Clock) -> None:
    outages = [DatabaseUnavailable(f"number {number}") for number in range(1000)]
    work = Work(*outages)
    with pytest.raises(DatabaseUnavailable, match=r"^number \d+$") as caught:
        await clock.retry(work, budget=10)
    assert caught.value is outages[work.tries - 1]
    assert 8 < clock.now - 1000 < 10


async def test_with_a_budget_of_zero_there_is_one_try(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 3)
    with pytest.raises(DatabaseUnavailable):
        await clock.retry(work, budget=0)
    assert work.tries == 1
    assert clock.pauses == []


async def test_no_try_is_interrupted_and_none_begins_after_the_budget(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 100, clock=clock, seconds=4)
    with pytest.raises(DatabaseUnavailable):
        await clock.retry(work, budget=10)
    assert work.tries == 3
    assert 12 < clock.now - 1000 < 13


async def test_pauses_grow_up_to_two_seconds_with_jitter(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 20)
    await clock.retry(work, budget=1000)
    longest = [min(2.0, 0.05 * 2**number) for number in range(20)]
    assert all(most / 2 <= pause <= most for most, pause in zip(longest, clock.pauses, strict=True))
    assert len(set(clock.pauses)) == 20


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ValueError(), TimeoutError(), KeyError("x")])
async def test_other_errors_are_raised_at_once(clock: Clock, error: Exception) -> None:
    work = Work(error)
    with pytest.raises(type(error)) as caught:
        await clock.retry(work, budget=10)
    assert caught.value is error
    assert work.tries == 1
    assert clock.pauses == []
