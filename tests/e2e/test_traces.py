"""Every upload has one trace, from the request through the broker into each rendering step."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from harness.images import encoded, gradient
from harness.service import FAST_SETTINGS, Api, Standalone, Worker, client, done, measured, upload
from harness.traces import Collector, Span, tree
from harness.waiting import eventually

PHOTO = encoded(gradient(1600, 1200), "JPEG")
TRACE = "0af7651916cd43dd8448eb211c80319c"
STATEMENTS = (
    "WITH changed AS (INSERT INTO images",
    "UPDATE images SET status",
    "WITH changed AS (UPDATE images SET status",
)
STEPS = [
    "inspect",
    "find_metadata",
    "strip",
    "open",
    "check_size",
    "scale_on_load",
    "decode",
    "read_metadata",
    "normalise",
    "shrink",
    "convert_colour",
    "orient",
    "classify",
]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def complete_trace(collector: Collector, image_id: str) -> list[Span]:
    """Return an image's trace once it is complete."""
    spans = collector.trace_of(image_id)
    return spans if {"POST /images", "process"} <= {span.name for span in spans} else []


def only(spans: list[Span], name: str) -> Span:
    (span,) = (span for span in spans if span.name == name)
    return span


def children(spans: list[Span], parent: Span) -> list[Span]:
    return sorted((span for span in spans if span.parent == parent.id), key=lambda span: span.began)


async def test_trace_connects_request_publish_and_rendering_steps(
    collector: Collector, postgres_database_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **FAST_SETTINGS,
        **collector.env,
        **measured(),
    }
    with ExitStack() as running:
        api = running.enter_context(Api(tmp_path, env))
        worker = running.enter_context(Worker(tmp_path, env))
        async with client(api.url) as http:
            accepted = await upload(http, PHOTO, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
            await done(http, accepted["id"])
        spans = await eventually(lambda: complete_trace(collector, accepted["id"]))
        (tmp_path / "trace.txt").write_text("\n".join(tree(spans)))  # for manual inspection
        await stop_worker_without_collector(worker)
    assert {span.trace for span in spans} == {TRACE}
    request, publish, process, render = (only(spans, each) for each in ("POST /images", "publish", "process", "render"))
    assert (request.process, publish.process, process.process) == ("api", "api", "worker")
    assert (publish.parent, process.parent, render.parent) == (request.id, publish.id, process.id)
    assert request.began <= publish.began <= process.began <= render.began <= render.ended <= process.ended
    steps = children(spans, render)
    assert {span.process for span in steps} == {"decoder"}
    assert [span.name for span in steps][: len(STEPS)] == STEPS
    assert {f"encode {size}" for size in ("100x100", "300x300", "1200x1200")} <= {span.name for span in steps}
    assert render.began <= steps[0].began
    assert all(before.ended <= after.began + 0.001 for before, after in pairwise(steps))
    assert steps[-1].ended <= render.ended
    for statement in STATEMENTS:
        assert any(span.title.startswith(statement) for span in spans), statement
    (line,) = worker.lines("image done")
    assert line["trace_id"] == TRACE
    (line,) = api.lines("image accepted")
    assert (line["trace_id"], line["span_id"]) == (TRACE, request.id)
    everything = {span.name for span in collector.spans}
    assert not any("health" in name for name in everything)
    assert {span.trace for span in collector.spans if span.title.startswith("SELECT images.id, images.status")} <= {
        span.trace for span in collector.spans if span.name.startswith(("GET", "POST", "process", "publish"))
    }


async def stop_worker_without_collector(worker: Worker) -> None:
    """The process exits cleanly and sends its spans; an unavailable collector does not delay it."""
    worker.stop()


async def test_service_works_and_stops_without_a_collector(tmp_path: Path) -> None:
    with Standalone(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as service:
        async with client(service.url) as http:
            await done(http, (await upload(http, PHOTO))["id"])
        service.stop()


async def test_standalone_sends_traces(collector: Collector, tmp_path: Path) -> None:
    with Standalone(tmp_path, collector.env) as service:
        async with client(service.url) as http:
            accepted = await upload(http, PHOTO)
            await done(http, accepted["id"])

        def spans_of_image() -> list[Span]:
            return [span for span in collector.spans if span.attributes.get("image.id") == accepted["id"]]

        spans = await eventually(lambda: spans_of_image() if len(spans_of_image()) > 1 else [])
    assert {span.process for span in spans} == {"standalone"}
    assert len({span.trace for span in spans}) == 1
