"""Measures the effect of a large table, and of a deep queue, on the latency of uploads.

    make bench-growth                     or: python -m benchmarks.operations.growth --quick

Four private services run side by side and are measured in turn, so that changes of the machine's speed affect all:

- empty: only the measured images, which a worker renders;
- table: in addition a million finished images with their thumbnails;
- short queue, deep queue: 1,000 and 100,000 images wait in the normal lane, which the worker processes all the time.

The measured uploads have 100 KB and are made one at a time: from the first byte to 202, to DONE as another connection
to the database sees it, and GET of the status of a random finished image. They use the express lane, because within a
lane an image waits for those ahead of it. The worker of the two queues sleeps 0.2 s for each image instead of rendering
it, so that both do the same work and processors are free. The sleep is subtracted from DONE, and from the time between
two images of the normal lane, which shows the cost of the queue's depth for the images in it.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import text

from benchmarks import figures
from benchmarks.operations.backlog import publish, record
from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from benchmarks.operations.sleeping_worker import SleepingWorker
from benchmarks.service.load import Connection, get, post
from benchmarks.service.pictures import SMALL
from benchmarks.service.records import Records, records
from harness.plans import fill, superuser
from image_service.observability.logging import configure_logging

JSON: Final = Path("build/bench/growth.json")
RENDER_SECONDS: Final = 0.2
GOAL: Final = 1.10
EMPTY: Final = "empty"
TABLE: Final = "table"
SHORT: Final = "short queue"
DEEP: Final = "deep queue"
WARM_UP: Final = 5
_SHORT_QUEUE: Final = 1_000
_SAMPLE: Final = 500
_DONE_LIMIT: Final = 60.0
_OK: Final = 200
_RATIOS: Final = ((TABLE, EMPTY), (DEEP, SHORT))
_FINISH: Final = text(
    "UPDATE images SET status = 'DONE', due_at = NULL, lease_until = NULL, error_code = NULL, error_detail = NULL, "
    "finished_at = coalesce(finished_at, updated_at), outputs_due_at = NULL, outputs_lease_until = NULL "
    "WHERE due_at IS NOT NULL OR outputs_due_at IS NOT NULL"
)
_SOME: Final = text("SELECT id FROM images WHERE status = 'DONE' ORDER BY md5(id::text) LIMIT :count")
_BACKLOG_DONE: Final = text(
    "SELECT count(*), extract(epoch FROM max(finished_at) - min(finished_at)) FROM images "
    "WHERE lane = 'normal' AND status = 'DONE' AND finished_at >= to_timestamp(:since)"
)
_SIZE: Final = text("SELECT pg_total_relation_size('images') + pg_total_relation_size('thumbnails')")


@dataclass(kw_only=True)
class System:
    """One of the services, and its measurements in seconds."""

    name: str
    cluster: LocalCluster
    sleep: float
    """Time that the worker sleeps for each image."""
    finished: list[UUID] = field(default_factory=list)
    """Images for GET."""
    posts: list[float] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)
    dones: list[float] = field(default_factory=list)
    backlog: float | None = None
    """Time between two images of the backlog, without the sleep."""

    async def round(self, connection: Connection, database: Records, request: bytes) -> None:
        """Measure one upload and one GET."""
        began = time.perf_counter()
        upload = await connection.upload(request)
        await database.until_done(upload.id, _DONE_LIMIT)
        self.dones.append(time.perf_counter() - began - self.sleep)
        self.posts.append(upload.answered)
        self.finished.append(upload.id)
        request = get(random.choice(self.finished))  # noqa: S311 — a sample, not cryptography
        began = time.perf_counter()
        status, _ = await connection.request(request)
        self.gets.append(time.perf_counter() - began)
        assert status == _OK

    def discard(self) -> None:
        """Discard the measurements of the warm-up."""
        self.posts.clear()
        self.gets.clear()
        self.dones.clear()


async def prepare(systems: dict[str, System], images: int, deep: int) -> int:
    """Fill table and queues; returns the bytes of an image in the database."""
    async with superuser(systems[TABLE].cluster.postgres.url) as database:
        began = time.monotonic()
        await fill(database, images)
        await database.execute(_FINISH)  # unfinished images would be processed
        await database.execute(text("TRUNCATE removals"))
        await database.execute(text("VACUUM (ANALYZE) images, thumbnails"))
        await database.execute(text("CHECKPOINT"))
        size = int((await database.execute(_SIZE)).scalar_one())
        systems[TABLE].finished += (await database.execute(_SOME, {"count": _SAMPLE})).scalars()
        print(f"{images:,} images recorded in {time.monotonic() - began:.0f} s", flush=True)
    content = SMALL.content()
    for name, count in ((SHORT, _SHORT_QUEUE), (DEEP, deep)):
        began = time.monotonic()
        cluster = systems[name].cluster
        file = cluster.folder / "picture.jpg"
        await asyncio.to_thread(file.write_bytes, content)
        await publish(cluster, await record(cluster, count, file, files=_SHORT_QUEUE))
        print(f"{count:,} images queued in {time.monotonic() - began:.0f} s", flush=True)
    return size // images


@asynccontextmanager
async def _opened(systems: dict[str, System]) -> AsyncIterator[list[tuple[System, Connection, Records]]]:
    """Opens a connection to each service, and one to its database."""
    async with AsyncExitStack() as stack:
        opened = []
        for system in systems.values():
            connection = await Connection.open(system.cluster.api.url)
            stack.callback(connection.close)
            database = await stack.enter_async_context(records(system.cluster.postgres.url))
            opened.append((system, connection, database))
        yield opened


async def measure(systems: dict[str, System], rounds: int) -> None:
    """Measure all services in turn, ``rounds`` times."""
    request = post(SMALL.content())
    began = time.time()
    async with _opened(systems) as opened:
        for number in range(WARM_UP + rounds):
            if number == WARM_UP:
                began = time.time()
                for system in systems.values():
                    system.discard()
            for system, connection, database in opened:
                await system.round(connection, database, request)
    for name in (SHORT, DEEP):
        system = systems[name]
        async with superuser(system.cluster.postgres.url) as connected:
            done, seconds = (await connected.execute(_BACKLOG_DONE, {"since": began})).one()
        if done >= _SHORT_QUEUE * 0.9:
            sys.exit(f"the {name} was empty before the end of the measurement: use fewer rounds")
        system.backlog = float(seconds) / (done - 1) - RENDER_SECONDS


def figures_of(system: System) -> dict[str, list[float]]:
    """Returns the measurements that are compared, by name."""
    found = {"POST": system.posts, "GET": system.gets, "DONE": system.dones}
    return found if system.backlog is None else {**found, "backlog, per image": [system.backlog]}


def table(systems: dict[str, System]) -> Iterator[str]:
    """Returns a table of medians in milliseconds, their ratios, and whether these meet the goal."""
    rows = []
    for grown, plain in _RATIOS:
        before = figures_of(systems[plain])
        for what, seconds in figures_of(systems[grown]).items():
            ratio = statistics.median(seconds) / statistics.median(before[what])
            rows.append(
                (
                    f"{what}: {plain} → {grown}",
                    f"{statistics.median(before[what]) * 1000:.2f}",
                    f"{statistics.median(seconds) * 1000:.2f}",
                    f"{ratio:.2f}",
                    "yes" if ratio <= GOAL else "NO",
                )
            )
    yield from figures.table(("p50", "before ms", "grown ms", "ratio", f"≤ {GOAL:.2f}"), rows)


def main() -> None:
    """Measure, print the table, and write JSON."""
    given = _options()
    configure_logging("WARNING", "auto", sys.stderr)
    print(figures.machine(), end="\n\n")
    with ExitStack() as running:
        render_seconds = {EMPTY: 0.0, TABLE: 0.0, SHORT: RENDER_SECONDS, DEEP: RENDER_SECONDS}
        systems = {
            name: System(name=name, cluster=running.enter_context(local_cluster(DECODE_SLOTS="1")), sleep=seconds)
            for name, seconds in render_seconds.items()
        }
        size = asyncio.run(prepare(systems, given.images, given.queue))
        for name, system in systems.items():
            cluster = system.cluster
            if name in {SHORT, DEEP}:
                cluster.running.enter_context(
                    SleepingWorker(cluster.folder, cluster.env, render_seconds=RENDER_SECONDS)
                )
            else:
                cluster.worker("worker")
        asyncio.run(measure(systems, given.rounds))
    lines = [
        *table(systems),
        "",
        f"{given.images:,} images in the table: {size:,} bytes each, with their thumbnails' rows and all indexes.",
        f"{given.queue:,} in the deep queue, {_SHORT_QUEUE:,} in the short one. {given.rounds} uploads to each.",
    ]
    print("\n".join(["", *lines]))
    if given.publish:
        figures.publish("growth", lines)
    _write(given.json, systems, size)
    print(f"\nwritten: {given.json}")


def _write(path: Path, systems: dict[str, System], size: int) -> None:
    content = {name: figures_of(system) for name, system in systems.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": figures.machine(), "bytes_per_image": size, **content}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tenth of the images")
    options.add_argument("--images", type=int, help="in the table (default 1,000,000)")
    options.add_argument("--queue", type=int, help="images in the deep queue (default 100,000)")
    options.add_argument("--rounds", type=int, help="uploads to each service (default 150)")
    options.add_argument("--json", type=Path, default=JSON, help="file for the figures")
    options.add_argument("--publish", action="store_true", help="also write the table to docs/performance.md")
    given = options.parse_args()
    given.images = given.images or (100_000 if given.quick else 1_000_000)
    given.queue = given.queue or (10_000 if given.quick else 100_000)
    given.rounds = given.rounds or (30 if given.quick else 150)
    return given


if __name__ == "__main__":
    main()
