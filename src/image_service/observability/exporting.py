"""Sending spans away: the only module that knows OpenTelemetry's SDK, an extra, so import it only when asked to."""

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

_GOODBYE_LIMIT: Final = 3.0
"""Seconds that the last spans have to leave."""
_BEGINNINGS: Final = frozenset({SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER})


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Send the spans of this process away for as long as the block takes; where to, its environment says.

    Whatever OpenTelemetry's own variables ask for counts: endpoint, headers, service name, resource, sampler.

    Args:
        service: The process's name, unless ``OTEL_SERVICE_NAME`` gives another.
    """
    own = Resource.create({"service.name": service, "service.version": __version__})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.sampler = OnBehalfOfSomebody(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # A collector that is away must not hold the process up.
        goodbye = threading.Thread(target=provider.shutdown, daemon=True)
        goodbye.start()
        goodbye.join(_GOODBYE_LIMIT)


def watch_engine(engine: object) -> None:
    """Have a span made of every statement that this SQLAlchemy engine executes."""
    # It names older versions of SQLAlchemy than ours as the ones it is for, and would do nothing, without a word.
    SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


class OnBehalfOfSomebody(Sampler):
    """Leaves out what a process does by itself, such as to ask the database how it is, every few seconds.

    Args:
        inner: Decides about the rest: what a request or a message began.
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
        if not parent.is_valid and kind not in _BEGINNINGS:
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See ``Sampler``."""
        return f"OnBehalfOfSomebody({self._inner.get_description()})"
