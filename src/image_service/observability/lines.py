"""Turns the facts of a log line into bytes, which nothing between here and the stream formats again."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import orjson
from structlog.typing import EventDict, Processor, WrappedLogger

Write = Callable[[bytes], object]

LONGEST: Final = 500
"""Characters of one value in a log line: clients choose some, such as paths and ``X-Forwarded-For``."""

_DELETE: Final = b"\x7f"
_SEPARATORS: Final = (",", ":")
# Other objects keep the form that Python gives them: a data class, say, leaves out of it what is secret.
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class LineLogger:
    """What structlog gives rendered lines to: every method writes one.

    Args:
        write: Writes a line.
        name: The name of the logger.
    """

    def __init__(self, write: Write, name: str = "root") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = write


class LineHandler(logging.Handler):
    """Writes the records of libraries, which log with the standard library."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a defect in it is reported on standard error, and ends here."""
        try:
            self._write(self.format(record).encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001  (any: it comes from the record)
            self.handleError(record)


class Rendering:
    """A processor that applies others in turn; the last one returns a line's bytes.

    Where one of them fails, the line says so instead: what is logged must not stop the caller.
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        """Returns the line's bytes."""
        what = event.get("event")
        try:
            rendered: Any = event
            for process in self._processors:
                rendered = process(logger, method, rendered)
            return cast("bytes", rendered)
        except Exception as error:  # noqa: BLE001  (any: it comes from what is logged)
            known = {"event": as_text(what), "level": method, "logger": logger.name}
            return json_line({**known, "not_rendered": type(error).__name__})


def shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut long values; a traceback, which is added after this, stays whole."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > LONGEST:
            event[name] = _cut(value)
    return event


def json_line(event: EventDict) -> bytes:
    """Returns a line of JSON that is printable ASCII: no value can end it early, or control a terminal."""
    try:
        line = orjson.dumps(event, as_text, _OPTIONS)
        return line if line.isascii() and _DELETE not in line else _ascii(orjson.loads(line))
    except TypeError:  # a large integer, half a character, a key that is no text, something that contains itself
        pass
    try:
        return _ascii(event)
    except (TypeError, ValueError, RecursionError):
        return _ascii({str(name): as_text(value) for name, value in event.items()})


def as_text(value: object) -> str:
    """Returns what a value looks like, cut if that is long, whatever it is."""
    try:
        return _cut(value if isinstance(value, str) else repr(value))
    except Exception:  # noqa: BLE001  (any: it comes from the value's own code)
        return f"<{type(value).__name__}>"


def _ascii(facts: object) -> bytes:
    return json.dumps(facts, default=as_text, separators=_SEPARATORS).encode() + b"\n"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
