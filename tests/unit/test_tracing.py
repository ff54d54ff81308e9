"""Root spans, propagation of traces, and loading the SDK on demand only."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler
from opentelemetry.trace import Span, SpanKind

from harness.logs import logging_kept
from image_service.observability import tracing
from image_service.observability.exporting import DropBackgroundSpans
from image_service.observability.logging import configure_logging

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """Makes spans, and keeps those that are exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=DropBackgroundSpans(ALWAYS_ON), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def span(self, name: str, kind: SpanKind) -> AbstractContextManager[Span]:
        return tracing.span(name, kind, provider=self.provider)

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.finished if span.name == name]
        return found


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()


def test_without_an_exporter_nothing_is_traced() -> None:
    with tracing.span("publish", SpanKind.PRODUCER) as span:
        assert not span.is_recording()
        assert tracing.current_traceparent() is None
        tracing.record_steps([("decode", 1.0)])


def test_message_continues_the_trace(traced: Traced) -> None:
    with traced.span("publish", SpanKind.PRODUCER):
        carried = tracing.current_traceparent()
    with tracing.continue_trace(carried), traced.span("process", SpanKind.CONSUMER):
        pass
    publish, process = traced.finished
    assert process.parent is not None
    assert process.parent.span_id == publish.context.span_id
    assert process.context.trace_id == publish.context.trace_id


@pytest.mark.parametrize("carried", [None, "", "nonsense", GIVEN.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)])
def test_message_without_a_valid_trace_starts_one(traced: Traced, carried: str | None) -> None:
    with traced.span("outer", SpanKind.CONSUMER):
        with tracing.continue_trace(carried), traced.span("process", SpanKind.CONSUMER):
            pass
        assert tracing.current_traceparent() is not None
    assert traced.named("process").parent is None


def test_recorded_steps_are_consecutive_and_end_now(traced: Traced) -> None:
    with traced.span("render", SpanKind.CONSUMER):
        tracing.record_steps([("decode", 0.5), ("encode 100x100", 0.25)], traced.provider)
    decode, encode, render = traced.named("decode"), traced.named("encode 100x100"), traced.named("render")
    times = [decode.start_time, decode.end_time, encode.start_time, encode.end_time, render.end_time]
    assert all(times)
    seconds = [(time or 0) / 1e9 for time in times]
    assert seconds[1] - seconds[0] == pytest.approx(0.5)
    assert seconds[1] == seconds[2]
    assert seconds[3] - seconds[2] == pytest.approx(0.25)
    assert seconds[3] <= seconds[4]


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (SpanKind.SERVER, True),
        (SpanKind.CONSUMER, True),
        (SpanKind.PRODUCER, True),
        (SpanKind.CLIENT, False),
        (SpanKind.INTERNAL, False),
    ],
)
def test_background_root_spans_are_dropped(traced: Traced, kind: SpanKind, *, kept: bool) -> None:
    with traced.span("root", kind):
        pass
    assert [span.name for span in traced.finished] == ["root"] * kept


@pytest.mark.parametrize("inner", [ALWAYS_ON, ALWAYS_OFF])
def test_other_spans_are_decided_by_the_inner_sampler(inner: Sampler) -> None:
    sampler = DropBackgroundSpans(inner)
    result = sampler.should_sample(None, 1, "root", SpanKind.SERVER)
    assert (result.decision is Decision.RECORD_AND_SAMPLE) == (inner is ALWAYS_ON)
    assert inner.get_description() in sampler.get_description()


def test_log_line_has_the_trace_and_span_id(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_kept():
        configure_logging("INFO", "json")
        with tracing.continue_trace(GIVEN), traced.span("process", SpanKind.CONSUMER):
            structlog.get_logger("ours").info("inside")
            logging.getLogger("library").info("inside")
        structlog.get_logger("ours").info("outside")
    inside, library, outside = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    (span,) = traced.finished
    assert inside["trace_id"] == library["trace_id"] == GIVEN.split("-")[1]
    assert inside["span_id"] == library["span_id"] == f"{span.context.span_id:016x}"
    assert "trace_id" not in outside


def test_exporter_is_not_imported_by_default() -> None:
    script = (
        "import sys, image_service.program.standalone;"
        "print(*sorted(m for m in sys.modules if m.startswith('opentelemetry.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603  (a fixed script)
    modules = loaded.stdout.split()
    assert "opentelemetry.trace" in modules
    assert not [name for name in modules if name.split(".")[1] in {"sdk", "exporter", "instrumentation", "proto"}]
