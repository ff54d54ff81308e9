"""Creates spans: one trace per upload, from the request through the broker to each step of the rendering.

Unless spans are exported (``exporting``), everything here does nothing: OpenTelemetry's API, which FastAPI needs too,
has no implementation behind it then.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER: Final = "traceparent"
_NANO: Final = 1_000_000_000
_IN_DECODER: Final = {"image_service.process": "decoder"}

_propagator: Final = TraceContextTextMapPropagator()


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str] | None = None,
    provider: TracerProvider | None = None,
) -> AbstractContextManager[Span]:
    """Returns a span for a block, as a child of the current one; ``provider`` is the process's if left out."""
    return trace.get_tracer(__name__, tracer_provider=provider).start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    )


def record_steps(timings: Iterable[tuple[str, float]], provider: TracerProvider | None = None) -> None:
    """Record spans for consecutive steps, as names and seconds, that the decoder process has just finished."""
    parent = trace.get_current_span()
    if not parent.is_recording():
        return
    timings = tuple(timings)
    tracer = trace.get_tracer(__name__, tracer_provider=provider)
    at = time.time_ns() - int(sum(seconds for _, seconds in timings) * _NANO)
    for name, seconds in timings:
        step = tracer.start_span(name, start_time=at, attributes=_IN_DECODER)
        at += int(seconds * _NANO)
        step.end(at)


def current_traceparent() -> str | None:
    """Returns the ``traceparent`` of the current span, for a message; None if nothing is traced."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(_HEADER)


@contextmanager
def continue_trace(traceparent: str | None) -> Iterator[None]:
    """Make the spans of the block part of the trace that a message carried; an invalid value counts as none."""
    token = context.attach(_propagator.extract({_HEADER: traceparent} if traceparent else {}))
    try:
        yield
    finally:
        context.detach(token)
