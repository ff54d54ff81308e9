"""Uploads while things break, and what became of each of them."""

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.operations.clients import Clients, photo
from benchmarks.operations.local_cluster import LocalCluster
from harness.plans import superuser
from harness.service import Worker, client
from image_service.domain.keys import original_key
from image_service.domain.recipe import DEFAULT_RECIPE

MINUTE: Final = 60.0
BROKER_AT: Final = 30.0
WORKER_AT: Final = 45.0
"""Seconds of each minute."""
WORKER_AWAY: Final = 2.0
IMPATIENT: Final = 50
"""Every so many clients hang up on their first try."""
UPLOADS_AT_ONCE: Final = 64
READS_AT_ONCE: Final = 16
DRAIN_LIMIT: Final = 300.0
OPEN: Final = text("SELECT count(*) FROM images WHERE due_at IS NOT NULL")


async def run(cluster: LocalCluster, images: int, minutes: float) -> bool:
    """Upload so many images in that time, break things, and return whether all is well in the end."""
    workers = [cluster.worker(f"worker-{number}") for number in (1, 2)]
    async with client(cluster.api.url) as api, superuser(cluster.postgres.url) as database:
        began = time.monotonic()
        breaking = asyncio.create_task(break_things(cluster, workers, began))
        clients = Clients(api)
        await upload_all(clients, images, minutes * MINUTE, began)
        uploaded = time.monotonic()
        print(f"{len(clients.accepted)} of {images} accepted in {uploaded - began:.0f} s")
        print(f"answers: {_counts(clients.answers)}")
        at_last_upload = (await database.execute(OPEN)).scalar_one()
        breaking.cancel()
        await asyncio.wait({breaking})
        print(f"faults: {_counts(breaking.result())}")
        await until_finished(database)
        print(f"backlog at the last upload {at_last_upload}, empty {time.monotonic() - uploaded:.0f} s after it")
        verdict = await judge(cluster, api, database, clients.accepted)
        waiting = (await api.get("/health")).json()["waiting"]
    print(f"states: {_counts(verdict.states)}; messages left: {waiting}")
    print(
        f"images {verdict.rows}, attempts {verdict.attempts}, published again by the reconciler {verdict.republished}"
    )
    for complaint in [*clients.refused, *verdict.complaints][:20]:
        print(f"  {complaint}")
    print(f"lost: {len(verdict.complaints)}")
    return not verdict.complaints and not clients.refused and verdict.rows == len(clients.accepted) == images


async def upload_all(clients: Clients, images: int, seconds: float, began: float) -> None:
    """Begin an upload whenever its time has come, however long the ones before take, within a limit."""
    turns = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def one(number: int) -> None:
        await asyncio.sleep(began + number * seconds / images - time.monotonic())
        async with turns:
            await clients.upload(f"photo-{number}", photo(number), impatient=number % IMPATIENT == 0)

    async with asyncio.TaskGroup() as uploads:
        for number in range(images):
            uploads.create_task(one(number))


async def break_things(cluster: LocalCluster, workers: list[Worker], began: float) -> Counter[str]:
    """Restart the broker and kill a worker each minute, in turn, until cancelled; what is being broken is mended."""
    faults: Counter[str] = Counter()

    async def broker() -> None:
        await asyncio.to_thread(cluster.rabbitmq.restart)
        faults["broker restarted"] += 1

    async def worker() -> None:
        victim = workers[faults["worker killed"] % len(workers)]
        await asyncio.to_thread(victim.kill)
        faults["worker killed"] += 1
        await asyncio.sleep(WORKER_AWAY)
        await asyncio.to_thread(victim.start)

    minute = began
    while True:
        for second, fault in ((BROKER_AT, broker), (WORKER_AT, worker)):
            try:
                await asyncio.sleep(minute + second - time.monotonic())
            except asyncio.CancelledError:
                return faults
            breaking = asyncio.create_task(fault())
            try:
                await asyncio.shield(breaking)
            except asyncio.CancelledError:
                await breaking
                return faults
        minute += MINUTE


async def until_finished(database: AsyncConnection) -> None:
    """Wait until every image is finished, or for long enough."""
    deadline = time.monotonic() + DRAIN_LIMIT
    left = (await database.execute(OPEN)).scalar_one()
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        left = (await database.execute(OPEN)).scalar_one()


@dataclass
class Verdict:
    """What became of the images."""

    rows: int
    attempts: int
    republished: int
    states: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    """One for each accepted image with which something is wrong."""


async def judge(
    cluster: LocalCluster, api: httpx.AsyncClient, database: AsyncConnection, accepted: dict[UUID, str]
) -> Verdict:
    """Compare what was sent with what is told, recorded and stored."""
    totals = text("SELECT count(*), coalesce(sum(attempt), 0), coalesce(sum(publishes), 0) FROM images")
    rows, attempts, republished = (await database.execute(totals)).one()
    verdict = Verdict(rows=rows, attempts=attempts, republished=republished)
    recorded: defaultdict[UUID, dict[str, str]] = defaultdict(dict)
    for image_id, key, sha256 in await database.execute(text("SELECT image_id, key, sha256 FROM thumbnails")):
        recorded[image_id][key] = sha256
    turns = asyncio.Semaphore(READS_AT_ONCE)

    async def one(image_id: UUID, sha256: str) -> None:
        async with turns:
            answer = await api.get(f"/images/{image_id}")
        told: dict[str, Any] = answer.json()
        verdict.states[told.get("status", str(answer.status_code))] += 1
        complaint = _wrong(cluster, told, {original_key(image_id): sha256, **recorded[image_id]})
        if complaint:
            verdict.complaints.append(f"{image_id}: {complaint}")

    await asyncio.gather(*(one(image_id, sha256) for image_id, sha256 in accepted.items()))
    return verdict


def _wrong(cluster: LocalCluster, told: dict[str, Any], files: dict[str, str]) -> str | None:
    if told.get("status") != "DONE":
        return f"is {told.get('status')}, {told.get('error') or told.get('detail')}"  # all of them are good images
    presets = {preset.name for preset in DEFAULT_RECIPE.presets}
    if set(told["thumbnails"]) != presets or len(files) != 1 + len(presets):
        return f"has {set(told['thumbnails'])}"
    damaged = [key for key, sha256 in files.items() if _digest(cluster.file(key)) != sha256]
    return f"does not have {damaged}" if damaged else None


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counter.items())) or "none"
