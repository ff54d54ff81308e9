"""Uploads during faults of broker and workers, and an audit of every accepted image."""

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

from benchmarks.operations.local_cluster import LocalCluster
from benchmarks.operations.retrying_clients import Clients, photo
from harness.plans import superuser
from harness.service import Worker, client
from image_service.domain.keys import original_key
from image_service.domain.recipe import DEFAULT_RECIPE

MINUTE: Final = 60.0
BROKER_AT: Final = 30.0
WORKER_AT: Final = 45.0
"""Seconds into each minute at which the broker is restarted, and a worker killed."""
WORKER_DOWN: Final = 2.0
"""Seconds until a killed worker is started again."""
DISCONNECTING: Final = 50
"""One in so many clients closes its connection during its first try."""
UPLOADS_AT_ONCE: Final = 64
READS_AT_ONCE: Final = 16
DRAIN_LIMIT: Final = 300.0
OPEN: Final = text("SELECT count(*) FROM images WHERE due_at IS NOT NULL")


async def run(cluster: LocalCluster, images: int, minutes: float) -> bool:
    """Upload images during faults; returns whether every image was accepted and finished correctly."""
    workers = [cluster.worker(f"worker-{number}") for number in (1, 2)]
    async with client(cluster.api.url) as api, superuser(cluster.postgres.url) as database:
        began = time.monotonic()
        faults = asyncio.create_task(inject_faults(cluster, workers, began))
        clients = Clients(api)
        await upload_all(clients, images, minutes * MINUTE, began)
        uploaded = time.monotonic()
        print(f"{len(clients.accepted)} of {images} accepted in {uploaded - began:.0f} s")
        print(f"responses: {_counts(clients.answers)}")
        at_last_upload = (await database.execute(OPEN)).scalar_one()
        faults.cancel()
        await asyncio.wait({faults})
        print(f"faults: {_counts(faults.result())}")
        await until_finished(database)
        print(f"backlog at the last upload {at_last_upload}, empty {time.monotonic() - uploaded:.0f} s after it")
        audit = await audit_images(cluster, api, database, clients.accepted)
        waiting = (await api.get("/health")).json()["waiting"]
    print(f"states: {_counts(audit.states)}; messages left: {waiting}")
    print(f"images {audit.rows}, attempts {audit.attempts}, republished by the reconciler {audit.republished}")
    for problem in [*clients.refused, *audit.problems][:20]:
        print(f"  {problem}")
    print(f"lost: {len(audit.problems)}")
    return not audit.problems and not clients.refused and audit.rows == len(clients.accepted) == images


async def upload_all(clients: Clients, images: int, seconds: float, began: float) -> None:
    """Start uploads evenly over the time, at most UPLOADS_AT_ONCE at a time."""
    slots = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def one(number: int) -> None:
        await asyncio.sleep(began + number * seconds / images - time.monotonic())
        async with slots:
            await clients.upload(f"photo-{number}", photo(number), disconnect=number % DISCONNECTING == 0)

    async with asyncio.TaskGroup() as uploads:
        for number in range(images):
            uploads.create_task(one(number))


async def inject_faults(cluster: LocalCluster, workers: list[Worker], began: float) -> Counter[str]:
    """Restart the broker and kill one of the workers each minute, until cancelled; a fault in progress is completed."""
    faults: Counter[str] = Counter()

    async def broker() -> None:
        await asyncio.to_thread(cluster.rabbitmq.restart)
        faults["broker restarted"] += 1

    async def worker() -> None:
        victim = workers[faults["worker killed"] % len(workers)]
        await asyncio.to_thread(victim.kill)
        faults["worker killed"] += 1
        await asyncio.sleep(WORKER_DOWN)
        await asyncio.to_thread(victim.start)

    minute = began
    while True:
        for second, fault in ((BROKER_AT, broker), (WORKER_AT, worker)):
            try:
                await asyncio.sleep(minute + second - time.monotonic())
            except asyncio.CancelledError:
                return faults
            injecting = asyncio.create_task(fault())
            try:
                await asyncio.shield(injecting)
            except asyncio.CancelledError:
                await injecting
                return faults
        minute += MINUTE


async def until_finished(database: AsyncConnection) -> None:
    """Wait until every image is finished, for at most DRAIN_LIMIT seconds."""
    deadline = time.monotonic() + DRAIN_LIMIT
    left = (await database.execute(OPEN)).scalar_one()
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        left = (await database.execute(OPEN)).scalar_one()


@dataclass
class Audit:
    """State of the images at the end."""

    rows: int
    attempts: int
    republished: int
    states: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """One for each accepted image that is not DONE, or whose files are wrong."""


async def audit_images(
    cluster: LocalCluster, api: httpx.AsyncClient, database: AsyncConnection, accepted: dict[UUID, str]
) -> Audit:
    """Compare the uploads with the API's responses, the database and the stored files."""
    totals = text("SELECT count(*), coalesce(sum(attempt), 0), coalesce(sum(publishes), 0) FROM images")
    rows, attempts, republished = (await database.execute(totals)).one()
    audit = Audit(rows=rows, attempts=attempts, republished=republished)
    recorded: defaultdict[UUID, dict[str, str]] = defaultdict(dict)
    for image_id, key, sha256 in await database.execute(text("SELECT image_id, key, sha256 FROM thumbnails")):
        recorded[image_id][key] = sha256
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def one(image_id: UUID, sha256: str) -> None:
        async with slots:
            answer = await api.get(f"/images/{image_id}")
        image: dict[str, Any] = answer.json()
        audit.states[image.get("status", str(answer.status_code))] += 1
        problem = _problem(cluster, image, {original_key(image_id): sha256, **recorded[image_id]})
        if problem:
            audit.problems.append(f"{image_id}: {problem}")

    await asyncio.gather(*(one(image_id, sha256) for image_id, sha256 in accepted.items()))
    return audit


def _problem(cluster: LocalCluster, image: dict[str, Any], files: dict[str, str]) -> str | None:
    if image.get("status") != "DONE":
        return f"is {image.get('status')}, {image.get('error') or image.get('detail')}"  # none of the uploads is broken
    presets = {preset.name for preset in DEFAULT_RECIPE.presets}
    if set(image["thumbnails"]) != presets or len(files) != 1 + len(presets):
        return f"has the thumbnails {set(image['thumbnails'])}"
    damaged = [key for key, sha256 in files.items() if _digest(cluster.file(key)) != sha256]
    return f"has missing or damaged files: {damaged}" if damaged else None


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counter.items())) or "none"
