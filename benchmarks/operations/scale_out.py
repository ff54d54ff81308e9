"""Measures the throughput of several workers, and what limits it.

    make bench-scale                      or: python -m benchmarks.operations.scale_out --quick

Every worker has one decode slot. First they render photographs of 12 megapixels, which needs a processor for each
worker. Then the renderer is replaced by a sleep of 50 ms without processor time, which leaves the coordination: fetch a
message, claim, store, record, acknowledge. In each run a backlog is queued before all workers start at the same moment;
the run ends when the last image is DONE. The API is idle. PostgreSQL counts its statements (``pg_stat_statements``).
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from benchmarks import figures
from benchmarks.operations.backlog import publish, record, until_consumed_by
from benchmarks.operations.deep_queue import count_statements
from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from benchmarks.operations.sleeping_worker import RENDER_SECONDS, SleepingWorker
from benchmarks.service.pictures import LARGE
from benchmarks.service.processes import BROKER, DATABASE, DECODE, WORKER, ResourceUsage
from benchmarks.service.records import records
from harness.plans import superuser
from harness.service import Worker
from image_service.observability.logging import configure_logging

JSON: Final = Path("build/bench/scale-out.json")
RENDERING: Final = (1, 2, 4)
SLEEPING: Final = (1, 2, 4, 8, 16)
IMAGES: Final = 80
"""For each worker whose renderer sleeps; for workers that render, in all."""
QUICK_IMAGES: Final = 30
_FINISH_LIMIT: Final = 600.0
_PARTS: Final = (WORKER, DECODE, DATABASE, BROKER)
_BUSY: Final = 0.85
"""A resource is the limit if it is busy for at least this share of the time."""
_RESET: Final = text("SELECT pg_stat_statements_reset()")
_CALLS: Final = text(
    "SELECT coalesce(sum(calls), 0), coalesce(sum(calls) FILTER (WHERE query = 'COMMIT'), 0) FROM pg_stat_statements "
    "WHERE query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%due_at IS NOT NULL%'"
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """Measurements of a run with one number of workers."""

    workers: int
    images: int
    wall: float
    """Seconds from the start of all workers to the last DONE."""
    cpu: dict[str, float]
    """Seconds of processor time, by group of processes."""
    statements: float
    """For an image, as the next two."""
    commits: float
    log_bytes: float
    """Write-ahead log."""
    processors: int

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.wall

    def busy(self, *parts: str) -> float:
        """Returns the number of processors that these groups kept busy."""
        return sum(self.cpu.get(part, 0.0) for part in parts) / self.wall

    @property
    def limit(self) -> str:
        """The resource that limits the throughput; "waiting" if none is busy."""
        if self.busy(*_PARTS) >= _BUSY * self.processors:
            busiest = max(_PARTS, key=self.busy)
            return f"processors, mostly {busiest}"
        if self.busy(BROKER) >= _BUSY:  # it is started with one scheduler
            return "broker's one thread"
        if self.busy(WORKER) >= _BUSY * self.workers:
            return "worker's one thread"
        return "waiting"


async def measure(
    cluster: LocalCluster, kind: type[Worker | SleepingWorker], workers: int, images: int, file: Path
) -> Level:
    """Measure how fast a number of workers process a backlog."""
    ids = await record(cluster, images, file)
    running = [kind(cluster.folder, cluster.env, f"{kind.__name__}-{workers}-{number}") for number in range(workers)]
    try:
        await asyncio.gather(*(asyncio.to_thread(worker.start) for worker in running))
        await until_consumed_by(cluster, workers)
        for worker in running:  # suspended until all messages are published
            worker.process.suspend()
        await publish(cluster, ids)
        groups = {
            WORKER: tuple(worker.process for worker in running),
            DATABASE: (cluster.postgres.process,),
            BROKER: (cluster.rabbitmq.process,),
        }
        usage = ResourceUsage(groups)
        async with superuser(cluster.postgres.url) as database, records(cluster.postgres.url) as recorded:
            await database.execute(_RESET)
            before, log = usage.seconds(), await recorded.log_bytes()
            began = time.time()
            for worker in running:
                worker.process.resume()
            await recorded.until_finished(_FINISH_LIMIT)
            after, log = usage.seconds(), await recorded.log_bytes() - log
            statements, commits = (await database.execute(_CALLS)).one()
            wall = max((await recorded.finished(ids)).values()) - began
        for worker in running:
            await asyncio.to_thread(worker.stop)
    finally:
        for worker in running:
            worker.kill()
    return Level(
        workers=workers,
        images=images,
        wall=wall,
        cpu={name: spent - before.get(name, 0.0) for name, spent in after.items()},
        statements=float(statements) / images,
        commits=float(commits) / images,
        log_bytes=log / images,
        processors=os.cpu_count() or 1,
    )


def table(levels: Sequence[Level], ideal: float | None = None) -> Iterator[str]:
    """Returns a table with a row for each level; ``ideal`` is one worker's images a second without coordination."""
    head = ("workers", "images/s", "speed-up", *([] if ideal is None else ["of ideal"]), "processors busy")
    head += (*(f"{part} ms/image" for part in _PARTS), "broker busy", "statements", "commits", "WAL KB", "limit")
    yield from figures.table(head, (_row(level, levels[0], ideal) for level in levels))


def _row(level: Level, first: Level, ideal: float | None) -> tuple[str, ...]:
    return (
        str(level.workers),
        f"{level.rate:.1f}",
        f"{level.rate / first.rate:.2f}",
        *([] if ideal is None else [f"{level.rate / ideal / level.workers:.0%}"]),
        f"{level.busy(*_PARTS):.2f} of {level.processors}",
        *(f"{level.cpu.get(part, 0.0) / level.images * 1000:.1f}" for part in _PARTS),
        f"{level.busy(BROKER):.0%}",
        f"{level.statements:.1f}",
        f"{level.commits:.1f}",
        f"{level.log_bytes / 1024:.1f}",
        level.limit,
    )


async def run(cluster: LocalCluster, given: argparse.Namespace) -> tuple[list[Level], list[Level]]:
    """Measure workers that render, then workers whose renderer sleeps."""
    file = cluster.folder / "picture.jpg"
    await asyncio.to_thread(file.write_bytes, LARGE.content())
    await count_statements(cluster)
    rendering, sleeping = [], []
    for workers in given.rendering:
        rendering.append(await measure(cluster, Worker, workers, given.images, file))
        print(f"{workers} workers that render: {rendering[-1].rate:.1f} images/s", flush=True)
    for workers in given.sleeping:
        sleeping.append(await measure(cluster, SleepingWorker, workers, given.images * workers, file))
        print(f"{workers} workers that sleep: {sleeping[-1].rate:.1f} images/s", flush=True)
    return rendering, sleeping


def main() -> None:
    """Measure, print tables, and write JSON."""
    given = _options()
    configure_logging("WARNING", "auto", sys.stderr)
    print(figures.machine(), end="\n\n")
    with local_cluster(DECODE_SLOTS="1") as cluster:
        rendering, sleeping = asyncio.run(run(cluster, given))
    tables = {
        "scale out, rendering": list(table(rendering)),
        "scale out, waiting": list(table(sleeping, 1 / RENDER_SECONDS)),
    }
    for name, lines in tables.items():
        print("\n".join(["", f"{name}:", "", *lines]))
        if given.publish:
            figures.publish(name, lines)
    _write(given.json, {"rendering": rendering, "sleeping": sleeping})
    print(f"\nwritten: {given.json}")


def _write(path: Path, series: dict[str, list[Level]]) -> None:
    content: dict[str, Any] = {
        name: [asdict(level) | {"rate": level.rate, "limit": level.limit} for level in levels]
        for name, levels in series.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": figures.machine(), **content}, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images instead of {IMAGES}")
    options.add_argument("--images", type=int, help="in all with --rendering; for each worker with --sleeping")
    options.add_argument(
        "--rendering", type=int, nargs="*", default=RENDERING, help="numbers of workers (default 1 2 4)"
    )
    options.add_argument(
        "--sleeping",
        type=int,
        nargs="*",
        default=SLEEPING,
        help="numbers of workers whose renderer sleeps (default 1 2 4 8 16)",
    )
    options.add_argument("--json", type=Path, default=JSON, help="file for the figures")
    options.add_argument("--publish", action="store_true", help="also write the tables to docs/performance.md")
    given = options.parse_args()
    given.images = given.images or (QUICK_IMAGES if given.quick else IMAGES)
    return given


if __name__ == "__main__":
    main()
