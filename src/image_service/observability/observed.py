"""Wraps adapters to measure them: each call's duration and outcome become metrics and a span.

Spans cost next to nothing unless they are exported: OpenTelemetry's API alone does nothing.
"""

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from opentelemetry.trace import Span, SpanKind, StatusCode
from prometheus_client import Histogram

from image_service.domain.image import Rendering
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipe
from image_service.errors import ServiceError
from image_service.observability import tracing
from image_service.observability.metrics import Metrics
from image_service.ports import Delivery, Drain, Handler, ObjectAttributes, Renderer, Storage, StoredObject, TaskQueue

_OK: Final = "ok"
_FAILED: Final = "failed"


class ObservedStorage:
    """A ``Storage`` whose operations on images are measured."""

    def __init__(self, inner: Storage, metrics: Metrics) -> None:
        self._inner = inner
        self._seconds = metrics.storage

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """See ``Storage``."""
        return self._inner.scratch()

    async def check_space(self) -> None:
        """See ``Storage``."""
        await self._inner.check_space()

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """See ``Storage``."""
        with _measured("storage adopt", self._seconds, "adopt"):
            await self._inner.adopt(files, attributes)

    async def local_path(self, key: str, scratch: Path, sha256: str) -> Path:
        """See ``Storage``."""
        with _measured("storage local_path", self._seconds, "local_path"):
            return await self._inner.local_path(key, scratch, sha256)

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ``Storage``."""
        return self._inner.read(key, start, length)

    async def delete(self, keys: Iterable[str]) -> None:
        """See ``Storage``."""
        with _measured("storage delete", self._seconds, "delete"):
            await self._inner.delete(keys)

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """See ``Storage``."""
        return self._inner.list(prefix)

    async def sweep_scratch(self, older_than: float) -> int:
        """See ``Storage``."""
        return await self._inner.sweep_scratch(older_than)

    async def bind_to_database(self, owner: str) -> str:
        """See ``Storage``."""
        return await self._inner.bind_to_database(owner)

    async def bound_database(self) -> str | None:
        """See ``Storage``."""
        return await self._inner.bound_database()

    async def probe(self) -> None:
        """See ``Storage``."""
        await self._inner.probe()


class ObservedQueue:
    """A ``TaskQueue`` whose messages are measured, and carry their trace."""

    def __init__(self, inner: TaskQueue, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def start(self) -> None:
        """See ``TaskQueue``."""
        await self._inner.start()

    async def close(self) -> None:
        """See ``TaskQueue``."""
        await self._inner.close()

    async def publish(self, delivery: Delivery) -> None:
        """See ``TaskQueue``."""
        attributes = _attributes(delivery)
        with _measured("publish", self._metrics.publishing, kind=SpanKind.PRODUCER, attributes=attributes):
            await self._inner.publish(replace(delivery, trace=tracing.current_traceparent()))

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """See ``TaskQueue``."""
        in_progress = self._metrics.deliveries_in_progress.labels(lane.value)
        seconds = self._metrics.deliveries

        async def handle(delivery: Delivery) -> None:
            with (
                in_progress.track_inprogress(),
                tracing.continue_trace(delivery.trace),
                _measured("process", seconds, lane.value, kind=SpanKind.CONSUMER, attributes=_attributes(delivery)),
            ):
                await handler(delivery)

        await self._inner.consume(handle, slots, drain, lane)

    async def depth(self) -> Mapping[Lane, int]:
        """See ``TaskQueue``."""
        return await self._inner.depth()


class ObservedRenderer:
    """A ``Renderer`` whose calls and steps are measured, including the steps in the decoder process."""

    def __init__(self, inner: Renderer, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """See ``Renderer``."""
        with _measured("render", self._metrics.renders):
            rendering = await self._inner.render(source, recipe, out)
            for name, seconds in rendering.timings:
                step, _, preset = name.partition(" ")
                self._metrics.steps.labels(step, preset).observe(seconds)
            tracing.record_steps(rendering.timings)
            return rendering


@contextmanager
def _measured(
    name: str,
    seconds: Histogram,
    *labels: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Create a span for the block, and record its duration; the histogram's last label is the outcome."""
    began = time.perf_counter()
    outcome = _FAILED
    with tracing.span(name, kind, attributes) as span:
        try:
            yield
            outcome = _OK
        except ServiceError as error:
            outcome = error.code
            _mark_failed(span, outcome)
            raise
        except BaseException:
            _mark_failed(span, outcome)
            raise
        finally:
            seconds.labels(*labels, outcome).observe(time.perf_counter() - began)


def _mark_failed(span: Span, outcome: str) -> None:
    span.set_attribute("error.type", outcome)
    span.set_status(StatusCode.ERROR)


def _attributes(delivery: Delivery) -> dict[str, str]:
    return {"image.id": str(delivery.image_id), "messaging.destination.name": delivery.lane.value}
