"""Exports spans: the only module that needs OpenTelemetry's SDK, an optional dependency, so import it on demand."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from image_service import __version__

_SHUTDOWN_TIMEOUT: Final = 3.0
"""Seconds for exporting the remaining spans at shutdown."""
_ROOT_KINDS: Final = frozenset({SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER})


@contextmanager
def export_spans(service: str) -> Iterator[None]:
    """Export the spans of this process for the duration of the block.

    OpenTelemetry's own environment variables apply: endpoint, headers, service name, resource, sampler.

    Args:
        service: The process's name, unless ``OTEL_SERVICE_NAME`` is set.
    """
    own = Resource.create({"service.name": service, "service.version": __version__})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.sampler = DropBackgroundSpans(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # An unreachable collector must not delay the end of the process.
        shutdown = threading.Thread(target=provider.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(_SHUTDOWN_TIMEOUT)


def trace_engine(engine: object) -> None:
    """Create a span for every statement that this SQLAlchemy engine executes."""
    # It declares support for older versions of SQLAlchemy than ours only, and would silently do nothing.
    SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


class DropBackgroundSpans(Sampler):
    """Drops spans that belong to no request or message, such as those of the health probes every few seconds.

    Args:
        inner: Decides about all other spans.
    """

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(  # noqa: PLR0913, PLR0917 — OpenTelemetry's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See ``Sampler``."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if not parent.is_valid and kind not in _ROOT_KINDS:
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See ``Sampler``."""
        return f"DropBackgroundSpans({self._inner.get_description()})"
