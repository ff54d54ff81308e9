"""Formats measurements as tables, and compares them with the goals."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import SUMMARY_CLIENTS, table
from benchmarks.service.idle import IdleLatency
from benchmarks.service.large_uploads import LargeUploads
from benchmarks.service.pictures import LARGE, MEGABYTE, SMALL
from benchmarks.service.processes import API, BOTH, BROKER, CLIENT, DATABASE, DECODE, WORKER
from benchmarks.service.runs import DISTRIBUTED, Run

GOAL_CLIENTS = int(SUMMARY_CLIENTS)
"""Goals are compared with the runs with so many clients, where they name no number."""
_PARTS = (API, WORKER, BOTH, DECODE, DATABASE, BROKER)
_MEGABYTE = 1024 * 1024
_DAY = 86_400
FACTORS = (1, 10, 100, 1000)
COMMITS = 4
"""For each image: record, mark as queued, claim, complete."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All measurements."""

    runs: tuple[Run, ...]
    ingest: dict[str, float]
    """Seconds of processor time for the bare durable ingest of an image, by picture."""
    idle: tuple[IdleLatency, ...]
    large_uploads: tuple[LargeUploads, ...]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal, and the measured value."""

    what: str
    goal: str
    measured: str
    met: bool


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Returns the 50th, the 95th and the 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000


def speed(runs: Sequence[Run]) -> Iterator[str]:
    """Returns a table of images a second, and of the time that each takes."""
    head = ("picture, mode", "clients", "images", "ceiling/s", "images/s", "of ceiling", "202 ms", "DONE ms")
    yield from table(head, (_speed(run) for run in runs))


def _speed(run: Run) -> tuple[str, ...]:
    return (
        f"{run.picture}, {run.mode}",
        str(run.clients),
        str(run.images),
        f"{run.ceiling.rate:.1f}",
        f"{run.rate:.1f}",
        f"{run.of_ceiling:.0%}",
        " / ".join(f"{value:.0f}" for value in percentiles(run.answered)),
        " / ".join(f"{value:.0f}" for value in percentiles(run.done)),
    )


def processor_time(runs: Sequence[Run]) -> Iterator[str]:
    """Returns a table of the processor time of an image in milliseconds, by process."""
    head = ("picture, mode, CPU ms/image", "clients", *_PARTS, "client", "all but decode", "bare decode")
    yield from table(head, (_processor_time(run) for run in runs))


def _processor_time(run: Run) -> tuple[str, ...]:
    return (
        f"{run.picture}, {run.mode}",
        str(run.clients),
        *(f"{run.cpu[part] / run.images * 1000:.1f}" if part in run.cpu else "" for part in _PARTS),
        f"{run.cpu[CLIENT] / run.images * 1000:.2f}",
        f"{run.beside_decode:.0%}",
        f"{run.ceiling.decode * 1000:.1f}",
    )


def overhead(runs: Sequence[Run], ingest: Mapping[str, float]) -> Iterator[str]:
    """Returns a table of the processor time of an image, compared with the least that any service needs."""
    head = (
        *("picture, mode", "clients", "all ms", "decode ms", "overhead"),
        *("bare render ms", "bare ingest ms", "multiple of the floor"),
    )
    yield from table(head, (_overhead(run, ingest[run.picture]) for run in runs))


def _overhead(run: Run, ingest: float) -> tuple[str, ...]:
    return (
        f"{run.picture}, {run.mode}",
        str(run.clients),
        f"{run.service_cpu * 1000:.1f}",
        f"{run.decoder_cpu * 1000:.1f}",
        f"{run.overhead:.0%}",
        f"{run.ceiling.decode * 1000:.1f}",
        f"{ingest * 1000:.1f}",
        f"{run.of_floor(ingest):.2f}",
    )


def memory(runs: Sequence[Run]) -> Iterator[str]:
    """Returns a table of the peak memory of the largest process of each group, and of an image's write-ahead log."""
    head = ("picture, mode, peak RSS MB", "clients", *_PARTS, "WAL KB/image")
    yield from table(head, (_memory(run) for run in runs))


def _memory(run: Run) -> tuple[str, ...]:
    return (
        f"{run.picture}, {run.mode}",
        str(run.clients),
        *(f"{run.peaks[part] / _MEGABYTE:.0f}" if part in run.peaks else "" for part in _PARTS),
        f"{run.log_bytes / 1024:.1f}" if run.log_bytes else "",
    )


def idle(measured: Sequence[IdleLatency]) -> Iterator[str]:
    """Returns a table of the latency of an idle service."""
    head = ("picture, mode", "KB", "202 p50 ms", "p95", "DONE p50 ms", "p95", "render ms", "DONE less render")
    yield from table(head, (_idle(one) for one in measured))


def _idle(one: IdleLatency) -> tuple[str, ...]:
    (answered, answered_p95, _), (done, done_p95, _) = percentiles(one.answered), percentiles(one.done)
    return (
        f"{one.picture}, {one.mode}",
        f"{one.kilobytes:.0f}",
        f"{answered:.1f}",
        f"{answered_p95:.1f}",
        f"{done:.1f}",
        f"{done_p95:.1f}",
        f"{one.rendered * 1000:.1f}",
        f"{one.beside_render * 1000:.1f}",
    )


def large_uploads(measured: Sequence[LargeUploads]) -> Iterator[str]:
    """Returns a table of the API's memory with many large uploads at once."""
    head = ("mode", "clients", "MB each", "RSS before MB", "peak MB", "growth MB")
    rows = (
        (
            one.mode,
            str(one.clients),
            f"{one.megabytes:.1f}",
            f"{one.before / _MEGABYTE:.0f}",
            f"{one.peak / _MEGABYTE:.0f}",
            f"{one.growth / _MEGABYTE:.0f}",
        )
        for one in measured
    )
    yield from table(head, rows)


def plan(runs: Sequence[Run]) -> Iterator[str]:
    """Returns a table of the resources for multiples of the measured speed, at the same cost for each image."""
    for run in runs:
        if run.clients == GOAL_CLIENTS and run.mode == DISTRIBUTED:
            head = (f"{run.picture}, {run.mode}", *(f"{factor}×" for factor in FACTORS))  # noqa: RUF001 — the multiplication sign
            yield from table(head, _plan(run))
            yield ""


def _plan(run: Run) -> Iterator[tuple[str, ...]]:
    rates = [factor * run.rate for factor in FACTORS]
    yield "images/s", *(f"{rate:,.0f}" for rate in rates)
    yield "images a day, millions", *(f"{rate * _DAY / 1e6:,.0f}" for rate in rates)
    for part in (DECODE, API, WORKER, DATABASE, BROKER):
        seconds = run.cpu[part] / run.images
        yield f"processors for {part} ({seconds * 1000:.1f} ms each)", *(f"{rate * seconds:,.1f}" for rate in rates)
    yield (
        f"MB/s into the storage ({run.stored / 1e6:.2f} MB each)",
        *(f"{rate * run.stored / 1e6:,.0f}" for rate in rates),
    )
    yield "storage a day, TB", *(f"{rate * run.stored * _DAY / 1e12:,.1f}" for rate in rates)
    yield f"MB/s of WAL ({run.log_bytes / 1024:.1f} KB each)", *(f"{rate * run.log_bytes / 1e6:,.1f}" for rate in rates)
    yield f"commits/s ({COMMITS} each)", *(f"{rate * COMMITS:,.0f}" for rate in rates)


def goals(measured: Measured) -> Iterator[str]:
    """Returns a table of the goals, and whether each is met."""
    rows = ((one.what, one.goal, one.measured, "yes" if one.met else "NO") for one in compared(measured))
    yield from table(("goal", "wanted", "measured", "met"), rows)


def compared(measured: Measured) -> Iterator[Goal]:
    """Yields the goals with the measured values."""
    for run in measured.runs:
        if run.clients == GOAL_CLIENTS and run.picture == LARGE.name:
            yield Goal(
                what=f"{run.picture}: of the bare renderer's images/s, {run.mode}",
                goal="≥ 90 %",
                measured=f"{run.of_ceiling * 100:.1f} %",
                met=run.of_ceiling >= 0.9,  # noqa: PLR2004 — the goal's number, as in the line above; also below
            )
            yield Goal(
                what=f"{run.picture}: CPU that is not decoding, {run.mode}",
                goal="≤ 15 %",
                measured=f"{run.beside_decode * 100:.1f} %",
                met=run.beside_decode <= 0.15,  # noqa: PLR2004 — see above
            )
        if run.clients == GOAL_CLIENTS and run.picture == SMALL.name:
            yield Goal(
                what=f"{run.picture}: images/s to DONE, {run.mode}",
                goal="≥ 200",
                measured=f"{run.rate:.1f}",
                met=run.rate >= 200,  # noqa: PLR2004 — see above
            )
    for one in measured.idle:
        if one.picture == MEGABYTE.name:
            answered = percentiles(one.answered)[0]
            yield Goal(
                what=f"{one.picture}, idle: POST → 202 p50, {one.mode}",
                goal="≤ 8 ms",
                measured=f"{answered:.1f} ms",
                met=answered <= 8,  # noqa: PLR2004 — see above
            )
        yield Goal(
            what=f"{one.picture}, idle: time to DONE less render, {one.mode}",
            goal="≤ 20 ms",
            measured=f"{one.beside_render * 1000:.1f} ms",
            met=one.beside_render <= 0.020,  # noqa: PLR2004 — see above
        )
    for each in measured.large_uploads:
        yield Goal(
            what=f"{each.clients} uploads of {each.megabytes:.0f} MB: growth of the API, {each.mode}",
            goal="≤ 64 MB",
            measured=f"{each.growth / _MEGABYTE:.0f} MB",
            met=each.growth <= 64 * _MEGABYTE,
        )
