"""Adapters that are watched: each does what the one inside does, and tells how long it took and how it ended.

Spans cost next to nothing where nobody collects them: then there is only OpenTelemetry's interface, which does nothing.
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
    """A ``Storage`` whose work on images is timed."""

    def __init__(self, inner: Storage, metrics: Metrics) -> None:
        self._inner = inner
        self._seconds = metrics.storage

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """See ``Storage``."""
        return self._inner.scratch()

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """See ``Storage``."""
        with _watched("storage adopt", self._seconds, "adopt"):
            await self._inner.adopt(files, attributes)

    async def local_path(self, key: str, scratch: Path) -> Path:
        """See ``Storage``."""
        with _watched("storage local_path", self._seconds, "local_path"):
            return await self._inner.local_path(key, scratch)

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ``Storage``."""
        return self._inner.read(key, start, length)

    async def delete(self, keys: Iterable[str]) -> None:
        """See ``Storage``."""
        with _watched("storage delete", self._seconds, "delete"):
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

    async def probe(self) -> None:
        """See ``Storage``."""
        await self._inner.probe()


class ObservedQueue:
    """A ``TaskQueue`` whose messages are timed, and carry the trace that they belong to."""

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
        facts = _facts(delivery)
        with _watched("publish", self._metrics.publishing, kind=SpanKind.PRODUCER, facts=facts):
            await self._inner.publish(replace(delivery, trace=tracing.current()))

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """See ``TaskQueue``."""
        in_progress = self._metrics.deliveries_in_progress.labels(lane.value)

        async def handle(delivery: Delivery) -> None:
            with (
                in_progress.track_inprogress(),
                tracing.continued(delivery.trace),
                _watched(
                    "process", self._metrics.deliveries, lane.value, kind=SpanKind.CONSUMER, facts=_facts(delivery)
                ),
            ):
                await handler(delivery)

        await self._inner.consume(handle, slots, drain, lane)

    async def depth(self) -> Mapping[Lane, int]:
        """See ``TaskQueue``."""
        return await self._inner.depth()


class ObservedRenderer:
    """A ``Renderer`` whose steps are timed, those in the decoder process included."""

    def __init__(self, inner: Renderer, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """See ``Renderer``."""
        with _watched("render", self._metrics.renders):
            rendering = await self._inner.render(source, recipe, out)
            for name, seconds in rendering.timings:
                step, _, preset = name.partition(" ")
                self._metrics.steps.labels(step, preset).observe(seconds)
            tracing.laps(rendering.timings)
            return rendering


@contextmanager
def _watched(
    name: str,
    seconds: Histogram,
    *labels: str,
    kind: SpanKind = SpanKind.INTERNAL,
    facts: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """A span for the block, and its time in the histogram; the last label tells how it ended."""
    began = time.perf_counter()
    outcome = _FAILED
    with tracing.span(name, kind, facts) as span:
        try:
            yield
            outcome = _OK
        except ServiceError as error:
            outcome = error.code
            _mark(span, outcome)
            raise
        except BaseException:
            _mark(span, outcome)
            raise
        finally:
            seconds.labels(*labels, outcome).observe(time.perf_counter() - began)


def _mark(span: Span, outcome: str) -> None:
    span.set_attribute("error.type", outcome)
    span.set_status(StatusCode.ERROR)


def _facts(delivery: Delivery) -> dict[str, str]:
    return {"image.id": str(delivery.image_id), "messaging.destination.name": delivery.lane.value}
