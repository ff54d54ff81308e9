"""Configures logging, for our code and all libraries: JSON lines, or readable lines on a terminal."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, Protocol

import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from image_service.observability.background_stream import BackgroundStream
from image_service.observability.lines import LineHandler, LineLogger, Rendering, Write, json_line, shorten
from image_service.observability.tracebacks import TracebackLimit

_STDOUT: Final = 1

LogFormat = Literal["auto", "json", "console"]

# Without the local variables of each frame, which structlog would add: these may hold passwords.
_dict_tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class Stream(Protocol):
    """Where the log lines of a command go."""

    def write(self, text: str, /) -> object:
        """Write a line."""
        ...

    def flush(self) -> None:
        """Deliver what was written."""
        ...

    def isatty(self) -> bool:
        """Whether it leads to a terminal."""
        ...


@contextmanager
def background_logging(level: str, log_format: LogFormat) -> Iterator[BackgroundStream]:
    """Configure logging for a server process: for the duration of the block a thread writes the lines to stdout.

    A logger that has been used keeps this configuration from then on: a process does this once.
    """
    with BackgroundStream(_STDOUT) as stream:
        configure_logging(level, log_format, stream)
        structlog.configure(cache_logger_on_first_use=True)
        yield stream


def configure_logging(
    level: str, log_format: LogFormat = "auto", stream: BackgroundStream | Stream | None = None
) -> None:
    """Send all log lines of this process to one stream.

    Args:
        level: Minimum severity, as the standard library names it.
        log_format: ``auto`` is readable on a terminal and JSON elsewhere.
        stream: The stream; stdout if left out.
    """
    stream = stream or sys.stdout
    write: Write = stream.write if isinstance(stream, BackgroundStream) else partial(_write_text, stream)
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, _add_origin(_local_time if console else _time)]
    last: list[Processor] = (
        [TracebackLimit(), _console(colors=stream.isatty())] if console else [_json(TracebackLimit())]
    )
    structlog.configure(
        processors=[Rendering([*shared, shorten, *last])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=partial(LineLogger, write),
        cache_logger_on_first_use=False,
    )
    handler = LineHandler(write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), shorten],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, _decoded],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # It logs every attempt to connect at ERROR; our own line says it once.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    # These log every connection, frame and request at INFO; our own lines cover what matters.
    for chatty in ("aio_pika", "aiormq", "aiosqlite", "asyncio", "multipart", "uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))


def _add_origin(time: Callable[[], str]) -> Processor:
    """Returns a processor that adds the trace and span, if there are any, the level, the logger and the time."""

    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        span = get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = format_trace_id(span.trace_id)
            event["span_id"] = format_span_id(span.span_id)
        event["level"] = method
        event["logger"] = event.get("_record", logger).name  # a library's record, or our logger
        event["timestamp"] = time()
        return event

    return add


def _time() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _local_time() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


def _json(limit: TracebackLimit) -> Processor:
    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        if "exc_info" in event:
            event = _dict_tracebacks(logger, method, limit(logger, method, event))
        return json_line(event)

    return rendered


def _console(*, colors: bool) -> Processor:
    render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        return f"{render(logger, method, event)}\n".encode(errors="backslashreplace")

    return rendered


def _decoded(_logger: WrappedLogger, _method: str, line: Any) -> str:  # noqa: ANN401  (a processor's type)
    """Returns a line as the standard library passes it on."""
    text: str = line.decode()
    return text


def _write_text(stream: Stream, line: bytes) -> None:
    # A failure is not reported: there is no other place for it.
    with suppress(OSError, ValueError):
        stream.write(line.decode())
        stream.flush()
