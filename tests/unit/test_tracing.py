"""What a trace begins with, what belongs to it, and that nothing of it is loaded unasked."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler
from opentelemetry.trace import SpanKind

from harness.logs import logging_kept
from image_service.observability import tracing
from image_service.observability.exporting import OnBehalfOfSomebody
from image_service.observability.logging import configure_logging

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that were made; the next test makes none again."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=OnBehalfOfSomebody(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_where_nothing_is_sent_nothing_is_traced() -> None:
    with tracing.span("publish", SpanKind.PRODUCER) as span:
        assert not span.is_recording()
        assert tracing.current() is None
        tracing.laps([("decode", 1.0)])


def test_a_message_carries_the_trace_on(exported: InMemorySpanExporter) -> None:
    with tracing.span("publish", SpanKind.PRODUCER):
        carried = tracing.current()
    with tracing.continued(carried), tracing.span("process", SpanKind.CONSUMER):
        pass
    publish, process = exported.get_finished_spans()
    assert process.parent is not None
    assert process.parent.span_id == publish.context.span_id
    assert process.context.trace_id == publish.context.trace_id


@pytest.mark.parametrize("carried", [None, "", "nonsense", GIVEN.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)])
def test_a_message_without_a_trace_begins_one(exported: InMemorySpanExporter, carried: str | None) -> None:
    with tracing.span("outer", SpanKind.CONSUMER):
        with tracing.continued(carried), tracing.span("process", SpanKind.CONSUMER):
            pass
        assert tracing.current() is not None
    assert by_name(exported)["process"].parent is None


def test_steps_of_another_process_lie_end_to_end_and_end_now(exported: InMemorySpanExporter) -> None:
    with tracing.span("render", SpanKind.CONSUMER):
        tracing.laps([("decode", 0.5), ("encode 100x100", 0.25)])
    spans = by_name(exported)
    decode, encode, render = spans["decode"], spans["encode 100x100"], spans["render"]
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
def test_what_a_process_does_by_itself_is_left_out(
    exported: InMemorySpanExporter, kind: SpanKind, *, kept: bool
) -> None:
    with tracing.span("root", kind):
        pass
    assert [span.name for span in exported.get_finished_spans()] == ["root"] * kept


@pytest.mark.parametrize("inner", [ALWAYS_ON, ALWAYS_OFF])
def test_the_rest_is_decided_by_whom_it_always_was(inner: Sampler) -> None:
    sampler = OnBehalfOfSomebody(inner)
    result = sampler.should_sample(None, 1, "root", SpanKind.SERVER)
    assert (result.decision is Decision.RECORD_AND_SAMPLE) == (inner is ALWAYS_ON)
    assert inner.get_description() in sampler.get_description()


def test_a_line_in_the_log_names_its_trace(exported: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_kept():
        configure_logging("INFO", "json")
        with tracing.continued(GIVEN), tracing.span("process", SpanKind.CONSUMER):
            structlog.get_logger("ours").info("inside")
            logging.getLogger("library").info("inside")
        structlog.get_logger("ours").info("outside")
    inside, library, outside = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    (span,) = exported.get_finished_spans()
    assert inside["trace_id"] == library["trace_id"] == GIVEN.split("-")[1]
    assert inside["span_id"] == library["span_id"] == f"{span.context.span_id:016x}"
    assert "trace_id" not in outside


def test_what_sends_traces_is_not_loaded_unasked() -> None:
    script = (
        "import sys, image_service.program; print(*sorted(m for m in sys.modules if m.startswith('opentelemetry.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603  (our own words)
    modules = loaded.stdout.split()
    assert "opentelemetry.trace" in modules
    assert not [name for name in modules if name.split(".")[1] in {"sdk", "exporter", "instrumentation", "proto"}]
