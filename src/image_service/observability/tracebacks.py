"""Logs the same traceback in full once a minute only: a defect that every request meets must not fill the log."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from traceback import walk_tb
from typing import Final, cast

from structlog.typing import EventDict, WrappedLogger

_INTERVAL: Final = 60.0
_MOST_KNOWN: Final = 100
"""Different tracebacks that are remembered; with more, all are forgotten."""
_LONGEST: Final = 500
"""Characters of an error's message."""


@dataclass(slots=True)
class _Known:
    since: float
    repeated: int = 0


class TracebackLimit:
    """A processor: replaces a traceback that was logged less than a minute ago by the error's name and message.

    Tracebacks are the same if the event, the class of the error and all lines of code are. ``repeated`` in such a line
    counts those since the full one; in the next full one, those before it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[object, _Known] = {}

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Remove the traceback of a log line if it is a repeated one."""
        error = _error(event.get("exc_info"))
        if error is None:
            return event
        where = tuple((frame.f_code, line) for frame, line in walk_tb(error.__traceback__))
        key = (event.get("event"), type(error), where)
        now = self._clock()
        known = self._known.get(key)
        if known is not None and now - known.since < _INTERVAL:
            known.repeated += 1
            del event["exc_info"]
            text = f"{type(error).__name__}: {error}"
            return {**event, "error": text[:_LONGEST], "repeated": known.repeated}
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = _Known(now)
        return event if known is None or not known.repeated else {**event, "repeated": known.repeated}


def _error(given: object) -> BaseException | None:
    """Returns the error that a log line is about: given itself, or as sys.exc_info() returns it, or the current one."""
    if isinstance(given, tuple):
        return cast("BaseException | None", given[1])
    return given if isinstance(given, BaseException) else sys.exception() if given else None
