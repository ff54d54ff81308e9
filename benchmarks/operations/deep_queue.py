"""Measures the reconciler's cost on a deep queue without workers, and the order in which workers empty it."""

import asyncio
import statistics
import sys
import time
from bisect import bisect_right, insort
from contextlib import suppress
from typing import Any, Final

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.operations.local_cluster import LocalCluster
from benchmarks.operations.retrying_clients import Clients, photo, poster
from benchmarks.operations.soak_faults import until_finished
from harness.plans import superuser
from harness.service import client
from image_service.bootstrap import open_resources, worker_services
from image_service.config import load_settings
from image_service.domain.lane import Lane
from image_service.observability.logging import configure_logging

CLIENTS: Final = 32
NORMAL_LANE: Final = 20
"""One in so many uploads is for the normal lane, the others are for the express lane."""
RECONCILER_RUN: Final = 3.0
"""Duration of the reconciler's run, as a multiple of UNCLAIMED_AFTER."""
PUBLISHED: Final = text("SELECT sum(publishes) FROM images")
STATISTICS: Final = (
    "SELECT coalesce(sum(calls), 0), coalesce(sum(total_exec_time), 0), "
    "coalesce(sum(shared_blks_hit + shared_blks_read), 0) "
    "FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'"
)


async def run(cluster: LocalCluster, images: int) -> bool:
    """Queue images, run the reconciler, start workers; returns whether all images are DONE."""
    await count_statements(cluster)
    async with client(cluster.api.url) as api, superuser(cluster.postgres.url) as database:
        began = time.monotonic()
        clients = Clients(api)
        await upload_all(clients, images)
        print(
            f"{images} images uploaded in {time.monotonic() - began:.0f} s, no worker running; "
            f"{clients.answers['accepted as NEW']} were answered before the broker confirmed their message"
        )
        await print_depth(api)
        await measure_reconciler(cluster, database)
        await print_depth(api)
        began = time.monotonic()
        for number in (1, 2):
            cluster.worker(f"worker-{number}")
        await until_finished(database)
        print(f"\n2 workers finished {time.monotonic() - began:.0f} s after their start")
        await print_overtaking(database)
        await print_depth(api)
        done = text("SELECT count(*) FROM images WHERE status = 'DONE'")
        return bool((await database.execute(done)).scalar_one() == images)


async def count_statements(cluster: LocalCluster) -> None:
    """Enable PostgreSQL's count of statements (pg_stat_statements)."""
    async with superuser(cluster.postgres.url) as database:
        await database.execute(text("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'"))
    await asyncio.to_thread(cluster.postgres.restart)
    async with superuser(cluster.postgres.url) as database:
        await database.execute(text("CREATE EXTENSION pg_stat_statements"))


async def upload_all(clients: Clients, images: int) -> None:
    """Upload images from CLIENTS clients at a time."""
    numbers = iter(range(images))

    async def one() -> None:
        for number in numbers:
            content = poster(number) if number % NORMAL_LANE == 0 else photo(number)
            await clients.upload(f"image-{number}", content)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


async def print_depth(api: httpx.AsyncClient) -> None:
    """Print the queue's depth, as GET /health returns it."""
    began = time.monotonic()
    health: dict[str, Any] = (await api.get("/health")).json()
    print(f"/health: {health['status']}, waiting {health['waiting']} ({(time.monotonic() - began) * 1000:.0f} ms)")


async def measure_reconciler(cluster: LocalCluster, database: AsyncConnection) -> None:
    """Run a worker's reconciler alone, in this process, and print the cost of each round."""
    configure_logging("WARNING", "auto", sys.stderr)
    settings = load_settings(**{name.lower(): value for name, value in cluster.env.items()})
    print(f"\nreconciler, each {settings.reconcile_interval:g} s, UNCLAIMED_AFTER {settings.unclaimed_after:g} s")
    print(
        f"{'after s':>8} {'published':>10} {'s':>7} {'CPU s':>7} {'statements':>11} {'database ms':>12} {'buffers':>9}"
    )
    began = time.monotonic()
    end = began + RECONCILER_RUN * settings.unclaimed_after
    async with open_resources(settings) as resources:
        reconciler = worker_services(settings, resources).reconciler
        while (after := time.monotonic() - began) < end - began:
            before = (await database.execute(PUBLISHED)).scalar_one()
            await database.execute(text("SELECT pg_stat_statements_reset()"))
            clock, processor = time.perf_counter(), time.process_time()
            with suppress(TimeoutError):
                async with asyncio.timeout(end - time.monotonic()):
                    await reconciler.run_once()
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
            calls, milliseconds, buffers = (await database.execute(text(STATISTICS))).one()
            published = (await database.execute(PUBLISHED)).scalar_one() - before
            print(
                f"{after:>8.0f} {published:>10} {clock:>7.2f} {processor:>7.3f} {calls:>11} {milliseconds:>12.1f} "
                f"{buffers:>9}",
                flush=True,
            )
            await asyncio.sleep(settings.reconcile_interval)
    images, republished, maximum = (
        await database.execute(text("SELECT count(*), sum(publishes), max(publishes) FROM images"))
    ).one()
    print(f"{republished} messages republished for {images} images, at most {maximum} for one\n")


async def print_overtaking(database: AsyncConnection) -> None:
    """Print by how many later uploads of its lane an image was overtaken."""
    for lane in (Lane.EXPRESS, Lane.NORMAL):
        finished = text("SELECT created_at FROM images WHERE lane = :lane ORDER BY finished_at")
        uploads = list((await database.execute(finished, {"lane": lane.value})).scalars())
        earlier: list[Any] = []
        overtaken_by = []
        for uploaded in uploads:
            overtaken_by.append(len(earlier) - bisect_right(earlier, uploaded))
            insort(earlier, uploaded)
        print(
            f"{lane}: {len(uploads)} images, each overtaken by at most {max(overtaken_by)} later ones, "
            f"{statistics.fmean(overtaken_by):.2f} on average"
        )
