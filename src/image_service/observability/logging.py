"""Configures logging, for our code and all libraries: JSON lines, or readable lines on a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol

import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from image_service.observability.background_stream import BackgroundStream
from image_service.observability.tracebacks import TracebackLimit

_LONGEST: Final = 500
"""Characters of one value in a log line: clients choose some, such as paths and ``X-Forwarded-For``."""

_STDOUT: Final = 1

LogFormat = Literal["auto", "json", "console"]

# Without the local variables of each frame, which structlog would add: these may hold passwords.
_dict_tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the current trace and span, if there are any."""
    span = get_current_span().get_span_context()
    if span.is_valid:
        event.update(trace_id=format_trace_id(span.trace_id), span_id=format_span_id(span.span_id))
    return event


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut long values; a traceback, which is added after this, stays whole."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST:
            event[name] = f"{value[:_LONGEST]}… ({len(value)} characters)"
    return event


class Stream(Protocol):
    """Where log lines go."""

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
    """Configure logging for a server process: for the duration of the block a thread writes the lines to stdout."""
    with BackgroundStream(_STDOUT) as stream:
        configure_logging(level, log_format, stream)
        yield stream


def configure_logging(level: str, log_format: LogFormat = "auto", stream: Stream | None = None) -> None:
    """Send all log lines of this process to one stream.

    Args:
        level: Minimum severity, as the standard library names it.
        log_format: ``auto`` is readable on a terminal and JSON elsewhere.
        stream: The stream; stdout if left out.
    """
    stream = stream or sys.stdout
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [_dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, _shorten, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _shorten],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, TracebackLimit(), *last],
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
