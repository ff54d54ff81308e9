"""Traces: one for each upload, from the request through the broker into each step of the rendering.

Unless spans are sent somewhere (``exporting``) everything here does nothing: OpenTelemetry's interface is there, as
FastAPI needs it, but there is nothing behind it.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER: Final = "traceparent"
_NANO: Final = 1_000_000_000
_IN_DECODER: Final = {"image_service.process": "decoder"}

_carrier: Final = TraceContextTextMapPropagator()


def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """A span around a block, below the one that is there."""
    return trace.get_tracer(__name__).start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    )


def laps(timings: Iterable[tuple[str, float]]) -> None:
    """Spans for steps that another process has just taken, one after another: names and seconds."""
    parent = trace.get_current_span()
    if not parent.is_recording():
        return
    timings = tuple(timings)
    tracer = trace.get_tracer(__name__)
    at = time.time_ns() - int(sum(seconds for _, seconds in timings) * _NANO)
    for name, seconds in timings:
        step = tracer.start_span(name, start_time=at, attributes=_IN_DECODER)
        at += int(seconds * _NANO)
        step.end(at)


def current() -> str | None:
    """What ties a message to the present span; None where nothing is traced."""
    carrier: dict[str, str] = {}
    _carrier.inject(carrier)
    return carrier.get(_HEADER)


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Let spans in the block belong to the trace that a message carried; nonsense is as good as nothing."""
    token = context.attach(_carrier.extract({_HEADER: traceparent} if traceparent else {}))
    try:
        yield
    finally:
        context.detach(token)
