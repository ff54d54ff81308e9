"""When a webhook is sent again, and what an answer means."""

from datetime import UTC, datetime

import pytest

from image_service.domain.delivery_schedule import (
    DISABLED_AFTER,
    MAX_TRIES,
    RETRY_DELAYS,
    Meaning,
    meaning_of,
    pause_of,
    retry_after_of,
    retry_in,
)
from image_service.domain.webhook_delivery import MAX_ANSWER, readable

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
DAY = 86_400


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (200, None, Meaning.TAKEN),
        (204, 5.0, Meaning.TAKEN),
        (299, None, Meaning.TAKEN),
        (301, None, Meaning.FAILED),
        (307, 5.0, Meaning.FAILED),
        (400, None, Meaning.FAILED),
        (404, None, Meaning.FAILED),
        (410, None, Meaning.GONE),
        (429, None, Meaning.BUSY),
        (500, 5.0, Meaning.FAILED),
        (502, None, Meaning.BUSY),
        (503, None, Meaning.FAILED),
        (503, 0.0, Meaning.BUSY),
        (504, None, Meaning.BUSY),
        (999, None, Meaning.FAILED),
    ],
)
def test_answers_mean_what_the_standard_says(status: int, retry_after: float | None, expected: Meaning) -> None:
    assert meaning_of(status, retry_after) is expected


def test_retries_follow_the_schedule_of_the_standard_within_a_tenth() -> None:
    minute, hour = 60, 3600
    standard = [5, 5 * minute, 30 * minute, *(hours * hour for hours in (2, 5, 10, 14, 20, 24))]
    assert [retry_in(tries, retry_after=None, jitter=0.5) for tries in range(1, MAX_TRIES)] == pytest.approx(standard)
    for jitter, factor in [(0.0, 0.9), (1.0, 1.1)]:
        delays = [retry_in(tries, retry_after=None, jitter=jitter) for tries in range(1, MAX_TRIES)]
        assert delays == pytest.approx([factor * delay for delay in standard])
    assert retry_in(MAX_TRIES, retry_after=None, jitter=0.5) is None
    assert retry_in(MAX_TRIES, retry_after=60, jitter=0.5) is None
    # An endpoint that never answers is disabled by the last attempts of the first delivery that it did not take.
    assert sum(RETRY_DELAYS[:-1]) < DISABLED_AFTER < 0.97 * sum(RETRY_DELAYS)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_retry_is_never_earlier_than_asked_for(jitter: float) -> None:
    delay = retry_in(1, retry_after=120.0, jitter=jitter)
    assert delay is not None
    assert 120 <= delay <= 132
    assert retry_in(3, retry_after=120.0, jitter=jitter) == retry_in(3, retry_after=None, jitter=jitter)


def test_busy_endpoint_rests_as_long_as_it_asks_for_or_a_minute_at_most() -> None:
    assert [pause_of(5.0, None), pause_of(7200.0, None), pause_of(7200.0, 600.0)] == [5.0, 60.0, 600.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        (" 120 ", 120),
        ("0", 0),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 400, DAY),
        ("604800", DAY),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60),
        ("Saturday, 28-Nov-26 12:01:00 GMT", 60),
        ("Sat Nov 28 12:01:00 2026", 60),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        ("Sat, 28 Nov 2099 12:00:00 GMT", DAY),
        ("Sat, 99 Nov 2026 12:00:00 GMT", None),
        ("Sat, 28 Nov 9999999999 12:00:00 GMT", None),
        ("soon", None),
        ("x" * 100_000, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_at_most_a_day(text: str | None, expected: float | None) -> None:
    assert retry_after_of(text, NOW) == expected


def test_answers_are_kept_as_text_that_can_be_stored_and_shown() -> None:
    assert readable(b"") == ""
    assert readable("tr\u00e8s bien\n\tok".encode()) == "tr\u00e8s bien\n\tok"
    assert readable(b"a\x00b\x1b[31m\xff") == "a\ufffdb\ufffd[31m\ufffd"
    assert readable("\u202eevil".encode()) == "\ufffdevil"
    assert len(readable(b"x" * 10_000)) == MAX_ANSWER
