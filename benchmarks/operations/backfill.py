"""Measures the effect of a back-fill on new uploads: the time from the first byte of a request until DONE.

    make bench-backfill                   or: python -m benchmarks.operations.backfill --rounds 5

A private service with one worker has many images, one preset of which is marked as made with other values. In each
round the same uploads are made twice: on the idle service, and while `image-service backfill` has queued all of those
images. At the end it says which presets were rendered again, and how often.
Exits with 1 if the 95th percentile is more than twice as long, or if a back-fill finished before the uploads.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import httpx
from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from benchmarks.service.pictures import picture
from harness.plans import superuser
from harness.processes import ProcessGroup
from harness.service import PROGRAM, client, upload, upload_all

SIZES: Final = {"816x612": (816, 612), "12 MP": (4000, 3000)}
LARGE: Final = 10
"""One in so many images of the back-fill is a large one."""
GOAL: Final = 2.0
UPLOADS_AT_ONCE: Final = 4
FINISH_LIMIT: Final = 600.0
PRESET: Final = "300x300"
"""The preset whose values change."""
WAITING: Final = text("SELECT count(*) FROM images WHERE outputs_due_at IS NOT NULL")
OLD: Final = text("SELECT count(*) FROM images WHERE recipe = 'old'")
OPEN: Final = text("SELECT count(*) FROM images WHERE due_at IS NOT NULL")
OUTDATE: Final = (
    text("UPDATE images SET recipe = 'old' WHERE id IN (SELECT id FROM images ORDER BY id LIMIT :count)"),
    text(
        f"UPDATE thumbnails SET fingerprint = 'old' WHERE preset = '{PRESET}' "  # noqa: S608 — a constant
        "AND image_id IN (SELECT id FROM images ORDER BY id LIMIT :count)"
    ),
)
MADE: Final = text("SELECT preset, sum(split_part(key, '.', 2)::int - 1) FROM thumbnails GROUP BY preset ORDER BY 1")
"""How often each preset was made again: attempts after the first are all back-fills here."""
FINISHED: Final = text("SELECT id, extract(epoch FROM finished_at) FROM images WHERE id IN :images").bindparams(
    bindparam("images", expanding=True)
)

Times = dict[str, list[float]]


async def uploads(
    api: httpx.AsyncClient, database: AsyncConnection, pictures: dict[str, bytes], count: int, pause: float
) -> Times:
    """Upload pictures of each size in turn; returns the seconds from each upload to DONE."""
    begun: dict[UUID, tuple[str, float]] = {}
    names = list(pictures)
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(began + number * pause - time.monotonic())
        name = names[number % len(names)]
        at = time.time()  # the database's clock is this machine's
        begun[UUID((await upload(api, pictures[name]))["id"])] = name, at
    times: Times = defaultdict(list)
    left = set(begun)
    deadline = time.monotonic() + FINISH_LIMIT
    while left:
        await asyncio.sleep(0.2)
        for image_id, at in await database.execute(FINISHED, {"images": list(left)}):
            if at is not None:
                name, since = begun[image_id]
                times[name].append(float(at) - since)
                left.discard(image_id)
        if time.monotonic() > deadline:
            sys.exit(f"{len(left)} uploads were not finished in time")
    return times


@asynccontextmanager
async def back_fill(cluster: LocalCluster, database: AsyncConnection, old: list[str]) -> AsyncIterator[None]:
    """Mark a preset of the oldest images as changed and run a back-fill that lasts longer than the block."""
    for statement in OUTDATE:
        await database.execute(statement, {"count": len(old)})
    group = ProcessGroup(folder=cluster.folder / "backfill")
    group.folder.mkdir(exist_ok=True)
    program = group.spawn(*PROGRAM, "backfill", "--window", str(len(old)), env=cluster.env)
    try:
        await _until(database, len(old) // 2, at_least=True)
        began = time.monotonic()
        outdated = (await database.execute(OLD)).scalar_one()
        yield
        left = (await database.execute(OLD)).scalar_one()
        seconds = time.monotonic() - began
        print(
            f"  back-fill: {left} of {outdated} left after {seconds:.0f} s: {(outdated - left) / seconds:.1f} a second"
        )
        if not left:
            sys.exit("the back-fill finished before the uploads: use more images")
        await _until(database, 0)
        print(f"  back-fill: all {outdated} after {time.monotonic() - began:.0f} s")
        if status := await asyncio.to_thread(program.wait, FINISH_LIMIT):
            sys.exit(f"image-service backfill ended with {status}:\n{group.tail()}")
    finally:
        group.kill()


async def _until(database: AsyncConnection, waiting: int, *, at_least: bool = False) -> None:
    """Wait until a number of images wait for the back-fill."""
    deadline = time.monotonic() + FINISH_LIMIT
    while True:
        found = (await database.execute(WAITING)).scalar_one()
        if found >= waiting if at_least else found <= waiting:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{found} images still wait for the back-fill")
        await asyncio.sleep(0.2)


async def _idle(database: AsyncConnection) -> None:
    deadline = time.monotonic() + FINISH_LIMIT
    while left := (await database.execute(OPEN)).scalar_one():
        if time.monotonic() > deadline:
            sys.exit(f"{left} images were not finished in time")
        await asyncio.sleep(0.2)


def quantiles(times: list[float]) -> tuple[float, float]:
    """The 50th and the 95th percentile, in milliseconds."""
    cuts = statistics.quantiles(times, n=20)
    return cuts[9] * 1000, cuts[18] * 1000


def table(idle: Times, busy: Times) -> float:
    """Print both and their ratios; returns the ratio of the 95th percentiles of all uploads."""
    print(
        f"\n{'picture':>8} {'uploads':>8}  {'idle p50':>9} {'p95 ms':>7}  {'back-fill p50':>14} {'p95 ms':>7}  ratios"
    )
    ratio = 0.0
    for name in [*idle, "all"]:
        alone = idle[name] if name in idle else [seconds for times in idle.values() for seconds in times]
        beside = busy[name] if name in busy else [seconds for times in busy.values() for seconds in times]
        (median, p95), (busy_median, busy_p95) = quantiles(alone), quantiles(beside)
        ratio = busy_p95 / p95
        print(
            f"{name:>8} {len(alone):>8}  {median:>9.1f} {p95:>7.1f}  {busy_median:>14.1f} {busy_p95:>7.1f}  "
            f"{busy_median / median:.2f} {ratio:.2f}"
        )
    return ratio


async def measure(cluster: LocalCluster, given: argparse.Namespace) -> float:
    """Measure alternately without and with a back-fill; returns the ratio of the 95th percentiles."""
    pictures = {name: picture(*size) for name, size in SIZES.items()}
    small, large = pictures.values()
    cluster.worker("worker")
    async with client(cluster.api.url) as api, superuser(cluster.postgres.url) as database:
        began = time.monotonic()
        contents = (large if number % LARGE == 0 else small for number in range(given.back_fill))
        old = await upload_all(api, contents, at_once=UPLOADS_AT_ONCE)
        await _idle(database)
        print(f"{len(old)} images uploaded and rendered in {time.monotonic() - began:.0f} s")
        idle: Times = defaultdict(list)
        busy: Times = defaultdict(list)
        for number in range(given.rounds):
            print(f"round {number + 1}", flush=True)
            await _idle(database)
            for name, times in (await uploads(api, database, pictures, given.uploads, given.pause)).items():
                idle[name] += times
            async with back_fill(cluster, database, old):
                for name, times in (await uploads(api, database, pictures, given.uploads, given.pause)).items():
                    busy[name] += times
        made = {preset: int(times) for preset, times in await database.execute(MADE)}
        print(f"\nrendered again: {', '.join(f'{preset} {times:,} times' for preset, times in made.items())}")
        return table(idle, busy)


def main() -> None:
    """Measure and print a table; exit with 1 if the goal is missed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3, help="repetitions (default 3)")
    options.add_argument("--uploads", type=int, default=60, help="uploads in each measurement (default 60)")
    options.add_argument("--pause", type=float, default=0.3, help="seconds from one upload to the next (default 0.3)")
    options.add_argument("--back-fill", type=int, default=2000, help="images of the back-fill (default 2000)")
    given = options.parse_args()
    with local_cluster() as cluster:
        ratio = asyncio.run(measure(cluster, given))
    if ratio > GOAL:
        sys.exit(f"the 95th percentile is {ratio:.2f} times as long; the goal is {GOAL:g}")


if __name__ == "__main__":
    main()
