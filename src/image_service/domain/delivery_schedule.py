"""When a webhook is sent again, and what an endpoint's answer means: Standard Webhooks 1.0.0 and RFC 9110."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

RETRY_DELAYS: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds from one attempt to the next: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; together some three days.

The first attempt is made at once.
"""
MAX_TRIES: Final = len(RETRY_DELAYS) + 1
DISABLED_AFTER: Final = 3 * 86_400.0
"""Seconds without a successful delivery after which an endpoint that fails is disabled."""

_JITTER: Final = 0.1
"""The part by which a delay is longer or shorter, so that what failed together is not sent together again."""
_LONGEST_RETRY_AFTER: Final = 86_400.0
_LONGEST_DIGITS: Final = 9
_LONGEST_DATE: Final = 64
_PAUSE: Final = 60.0
"""The longest pause of an endpoint that is busy and does not say for how long."""
_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


class Meaning(StrEnum):
    """What an answer says."""

    TAKEN = "taken"
    """The endpoint has the event."""
    FAILED = "failed"
    """It has not. That includes redirects, which are never followed."""
    BUSY = "busy"
    """It has not, and is to be left alone for a while."""
    GONE = "gone"
    """It wants no events any more."""


def meaning_of(status: int, retry_after: float | None) -> Meaning:
    """Returns what an answer means.

    Args:
        status: Of the answer.
        retry_after: What its Retry-After says, in seconds; None: it has none.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Meaning.TAKEN
    if status == HTTPStatus.GONE:
        return Meaning.GONE
    if status in _BUSY or (status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None):
        return Meaning.BUSY
    return Meaning.FAILED


def retry_in(tries: int, *, retry_after: float | None, jitter: float) -> float | None:
    """Returns the seconds until the next attempt; None: there is none.

    Args:
        tries: How many attempts were made, at least one.
        retry_after: The least that the endpoint asked for.
        jitter: A random number from 0 to 1.
    """
    if tries >= MAX_TRIES:
        return None
    delay = RETRY_DELAYS[tries - 1] * (1 - _JITTER + 2 * _JITTER * jitter)
    return delay if retry_after is None else max(delay, retry_after * (1 + _JITTER * jitter))


def pause_of(delay: float, retry_after: float | None) -> float:
    """Returns the seconds for which nothing is sent to a busy endpoint.

    Args:
        delay: Until the next attempt at the delivery that it did not take.
        retry_after: What the endpoint asked for; None: it did not say.
    """
    return min(delay, _PAUSE) if retry_after is None else retry_after


def retry_after_of(text: str | None, now: datetime) -> float | None:
    """Returns the seconds that a Retry-After header asks for, at most a day; None: there is none that is valid.

    Args:
        text: Seconds, or a date of HTTP (RFC 9110, section 10.2.3).
        now: The time of the answer.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text) if len(text) <= _LONGEST_DIGITS else _LONGEST_RETRY_AFTER
    elif text and len(text) <= _LONGEST_DATE:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)
