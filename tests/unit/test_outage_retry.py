"""Trying again through an outage: how often, how long, and what is not an outage. The clock is the test's own."""

from types import SimpleNamespace

import pytest

from image_service.errors import DatabaseUnavailable, Outage, StorageUnavailable
from image_service.services import outage_retry
from image_service.services.outage_retry import retry_on_outage


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Work:
    """Fails with the given errors, one a try, and then works."""

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
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage_retry, "asyncio", SimpleNamespace(sleep=clock.sleep, get_running_loop=lambda: clock))
    return clock


async def test_what_works_is_done_once_and_without_a_pause(clock: Clock) -> None:
    work = Work()
    assert await retry_on_outage(work, budget=10) == "result"
    assert work.tries == 1
    assert clock.pauses == []


async def test_what_an_outage_ended_is_tried_again(clock: Clock) -> None:
    work = Work(DatabaseUnavailable(), StorageUnavailable(), Outage())
    assert await retry_on_outage(work, budget=10) == "result"
    assert work.tries == 4
    assert len(clock.pauses) == 3


async def test_when_the_patience_ends_the_last_outage_is_raised(clock: Clock) -> None:
    outages = [DatabaseUnavailable(f"number {number}") for number in range(1000)]
    work = Work(*outages)
    with pytest.raises(DatabaseUnavailable, match=r"^number \d+$") as caught:
        await retry_on_outage(work, budget=10)
    assert caught.value is outages[work.tries - 1]
    assert 8 < clock.now - 1000 < 10


async def test_without_patience_there_is_one_try(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 3)
    with pytest.raises(DatabaseUnavailable):
        await retry_on_outage(work, budget=0)
    assert work.tries == 1
    assert clock.pauses == []


async def test_no_try_is_cut_short_and_none_begins_after_the_patience(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 100, clock=clock, seconds=4)
    with pytest.raises(DatabaseUnavailable):
        await retry_on_outage(work, budget=10)
    assert work.tries == 3
    assert 12 < clock.now - 1000 < 13


async def test_the_pauses_grow_up_to_two_seconds_and_are_jittered(clock: Clock) -> None:
    work = Work(*[DatabaseUnavailable()] * 20)
    await retry_on_outage(work, budget=1000)
    longest = [min(2.0, 0.05 * 2**number) for number in range(20)]
    assert all(most / 2 <= pause <= most for most, pause in zip(longest, clock.pauses, strict=True))
    assert len(set(clock.pauses)) == 20


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ValueError(), TimeoutError(), KeyError("x")])
async def test_what_is_no_outage_is_raised_at_once(clock: Clock, error: Exception) -> None:
    work = Work(error)
    with pytest.raises(type(error)) as caught:
        await retry_on_outage(work, budget=10)
    assert caught.value is error
    assert work.tries == 1
    assert clock.pauses == []
