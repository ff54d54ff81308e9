"""A collector for the spans of the service's processes, and their rendering as a tree with times."""

import gzip
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

EXPORT_SETTINGS = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
"""Makes processes export spans every 100 milliseconds."""
_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Span:
    """One span; times in milliseconds."""

    trace: str
    id: str
    parent: str
    name: str
    process: str
    """``api``, ``worker`` or ``decoder``."""
    began: float
    ended: float
    attributes: dict[str, str] = field(compare=False)

    @property
    def title(self) -> str:
        """The statement of a database span, else the span's name."""
        statement = self.attributes.get("db.statement") or self.attributes.get("db.query.text")
        return " ".join(statement.split())[:56] if statement else self.name


class Collector:
    """Receives spans by OTLP over HTTP at a free port of 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.spans: list[Span] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """Settings of processes that export their spans to this collector."""
        return EXPORT_SETTINGS | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}"}

    def trace_of(self, image_id: str) -> list[Span]:
        """Return every span of the trace of an image's upload; empty until its ``publish`` span has arrived."""
        traces = {
            span.trace
            for span in self.spans
            if span.name == "publish" and span.process == "api" and span.attributes.get("image.id") == image_id
        }
        return [span for span in self.spans if span.trace in traces]

    def take(self, body: bytes) -> None:
        """Store the spans of a request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes
                    }
                    self.spans.append(
                        Span(
                            trace=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            name=span.name,
                            process=attributes.get("image_service.process", service.removeprefix("image-service-")),
                            began=span.start_time_unix_nano / _MILLION,
                            ended=span.end_time_unix_nano / _MILLION,
                            attributes=attributes,
                        )
                    )


class _Server(ThreadingHTTPServer):
    def __init__(self, collector: Collector) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.collector = collector


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name in the standard library)
        """Do not log requests."""


def tree(spans: Iterable[Span]) -> Iterator[str]:
    """Render a trace as lines: start after the first span, duration (both in milliseconds), process, name."""
    spans = sorted(spans, key=lambda span: span.began)
    first = spans[0].began
    ids = {span.id for span in spans}

    def below(parent: str | None, depth: int) -> Iterator[str]:
        for span in spans:
            if (span.parent if span.parent in ids else None) == parent:
                yield (
                    f"{span.began - first:9.1f} {span.ended - span.began:9.1f}  {span.process:8}"
                    f"{'  ' * depth}{span.title}"
                )
                yield from below(span.id, depth + 1)

    yield f"{'began':>9} {'took':>9}  {'process':8}span   (milliseconds)"
    yield from below(None, 0)
