"""What more workers bring, and what sets an end to it.

    make bench-scale                      or: python -m benchmarks.operations.scale_out --quick

Every worker has one decode slot. First they render photographs of 12 megapixels: as many as there are processors can
be of use. Then the renderer is replaced by a wait of 50 ms that costs no processor time, so that what is left is
the coordination: fetching a message, claiming, storing, recording, acknowledging. Each time a backlog is there before
the workers may begin, which all do at the same moment, and the clock stops when the last image is DONE. The API has no
part in it. PostgreSQL counts its statements (``pg_stat_statements``).
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
from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from benchmarks.operations.queueing import count_statements
from benchmarks.operations.waiting_worker import WAIT, WaitingWorker
from benchmarks.service.pictures import LARGE
from benchmarks.service.processes import BROKER, DATABASE, DECODE, WORKER, Watch
from benchmarks.service.records import records
from harness.plans import superuser
from harness.service import Worker
from image_service.observability.logging import configure_logging

JSON: Final = Path("build/bench/scale-out.json")
RENDERING: Final = (1, 2, 4)
WAITING: Final = (1, 2, 4, 8, 16)
IMAGES: Final = 80
"""For each worker that waits; for those that render, in all."""
QUICK_IMAGES: Final = 30
_FINISH_LIMIT: Final = 600.0
_PARTS: Final = (WORKER, DECODE, DATABASE, BROKER)
_BUSY: Final = 0.85
"""The share of a resource's time from which on it is the one that sets the end."""
_RESET: Final = text("SELECT pg_stat_statements_reset()")
_CALLS: Final = text(
    "SELECT coalesce(sum(calls), 0), coalesce(sum(calls) FILTER (WHERE query = 'COMMIT'), 0) FROM pg_stat_statements "
    "WHERE query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%due_at IS NOT NULL%'"
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What so many workers did."""

    workers: int
    images: int
    wall: float
    """Seconds from the moment when all may begin to the last DONE."""
    cpu: dict[str, float]
    """Seconds of processor time, by process."""
    statements: float
    """Of an image."""
    commits: float
    log_bytes: float
    """Write-ahead log of an image."""
    processors: int

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.wall

    def busy(self, *parts: str) -> float:
        """Processors that these kept busy."""
        return sum(self.cpu.get(part, 0.0) for part in parts) / self.wall

    @property
    def limit(self) -> str:
        """What sets the end, if anything does."""
        if self.busy(*_PARTS) >= _BUSY * self.processors:
            most = max(_PARTS, key=self.busy)
            return f"processors, mostly {most}"
        if self.busy(BROKER) >= _BUSY:  # it is started with one scheduler
            return "broker's one thread"
        if self.busy(WORKER) >= _BUSY * self.workers:
            return "worker's one thread"
        return "waiting"


async def measure(
    cluster: LocalCluster, kind: type[Worker | WaitingWorker], workers: int, images: int, file: Path
) -> Level:
    """Have so many workers work off a backlog."""
    ids = await record(cluster, images, file)
    running = [kind(cluster.folder, cluster.env, f"{kind.__name__}-{workers}-{number}") for number in range(workers)]
    try:
        await asyncio.gather(*(asyncio.to_thread(worker.start) for worker in running))
        await until_consumed_by(cluster, workers)
        for worker in running:  # held, so that none begins while others are still being told
            worker.process.suspend()
        await publish(cluster, ids)
        groups = {
            WORKER: tuple(worker.process for worker in running),
            DATABASE: (cluster.postgres.process,),
            BROKER: (cluster.rabbitmq.process,),
        }
        watch = Watch(groups)
        async with superuser(cluster.postgres.url) as database, records(cluster.postgres.url) as known:
            await database.execute(_RESET)
            before, log = watch.seconds(), await known.log_bytes()
            began = time.time()
            for worker in running:
                worker.process.resume()
            await known.until_finished(_FINISH_LIMIT)
            after, log = watch.seconds(), await known.log_bytes() - log
            statements, commits = (await database.execute(_CALLS)).one()
            wall = max((await known.finished(ids)).values()) - began
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
    """A line for each; ``ideal`` is what one worker would do if coordination took no time."""
    head = ("workers", "images/s", "speed-up", *([] if ideal is None else ["of ideal"]), "processors busy")
    head += (*(f"{part} ms/image" for part in _PARTS), "broker busy", "statements", "commits", "WAL KB", "limit")
    yield from figures.table(head, (_line(level, levels[0], ideal) for level in levels))


def _line(level: Level, first: Level, ideal: float | None) -> tuple[str, ...]:
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
    """Both series."""
    file = cluster.folder / "picture.jpg"
    await asyncio.to_thread(file.write_bytes, LARGE.content())
    await count_statements(cluster)
    rendering, waiting = [], []
    for workers in given.rendering:
        rendering.append(await measure(cluster, Worker, workers, given.images, file))
        print(f"{workers} workers that render: {rendering[-1].rate:.1f} images/s", flush=True)
    for workers in given.waiting:
        waiting.append(await measure(cluster, WaitingWorker, workers, given.images * workers, file))
        print(f"{workers} workers that wait: {waiting[-1].rate:.1f} images/s", flush=True)
    return rendering, waiting


def main() -> None:
    """Measure, print tables, and write JSON."""
    given = _options()
    configure_logging("WARNING", "auto", sys.stderr)
    print(figures.machine(), end="\n\n")
    with local_cluster(DECODE_SLOTS="1") as cluster:
        rendering, waiting = asyncio.run(run(cluster, given))
    tables = {"scale out, rendering": list(table(rendering)), "scale out, waiting": list(table(waiting, 1 / WAIT))}
    for name, lines in tables.items():
        print("\n".join(["", f"{name}:", "", *lines]))
        if given.publish:
            figures.publish(name, lines)
    _write(given.json, {"rendering": rendering, "waiting": waiting})
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
    options.add_argument("--images", type=int, help="in all, or for each worker that waits")
    options.add_argument("--rendering", type=int, nargs="*", default=RENDERING, help="workers (default 1 2 4)")
    options.add_argument("--waiting", type=int, nargs="*", default=WAITING, help="workers (default 1 2 4 8 16)")
    options.add_argument("--json", type=Path, default=JSON, help="where the figures go")
    options.add_argument("--publish", action="store_true", help="also put the tables into docs/performance.md")
    given = options.parse_args()
    given.images = given.images or (QUICK_IMAGES if given.quick else IMAGES)
    return given


if __name__ == "__main__":
    main()
