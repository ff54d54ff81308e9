"""A backlog that nobody had to upload: rows, files and messages as uploads would have left them."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from benchmarks.operations.local_cluster import LocalCluster
from harness.broker import channel_to, started
from harness.plans import superuser
from harness.waiting import eventually
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.ports import Delivery

QUEUE: Final = "images"
"""The broker's name for the normal lane."""
_AT_ONCE: Final = 500
_MOST_LINKS: Final = 10_000
"""File systems allow so many names for one file, and some more."""
_CONNECT_LIMIT: Final = 60.0
_ROWS: Final = text(
    """
    INSERT INTO images (
        id, status, format, width, height, size_bytes, sha256, lane, queued_at, due_at, created_at, updated_at
    )
    SELECT id, 'PROCESSING', 'jpeg', 4000, 3000, :size, md5(id::text) || md5(id::text), :lane,
        clock_timestamp(), clock_timestamp() + interval '1 day', clock_timestamp(), clock_timestamp()
    FROM unnest(CAST(:ids AS uuid[])) AS id
    """
)


async def record(cluster: LocalCluster, count: int, original: Path, *, files: int | None = None) -> list[UUID]:
    """Record so many images in the normal lane as queued, with their files, though nothing is published yet.

    Args:
        cluster: The service.
        count: How many.
        original: The file that each of them is; it has to be on the storage's disk.
        files: How many of them, from the first on, get their file, where not all are going to be rendered.

    Returns:
        Their ids.
    """
    ids = [uuid7() for _ in range(count)]
    await asyncio.to_thread(_link, cluster, ids[:files], original)
    size = (await asyncio.to_thread(original.stat)).st_size
    async with superuser(cluster.postgres.url) as database:
        for batch in _batches(ids, 10_000):
            await database.execute(_ROWS, {"ids": batch, "size": size, "lane": Lane.NORMAL.value})
        await database.execute(text("VACUUM (ANALYZE) images"))
        await database.execute(text("CHECKPOINT"))
    return ids


async def publish(cluster: LocalCluster, ids: Sequence[UUID]) -> None:
    """Publish a message for each."""
    async with started(cluster.rabbitmq.url, QUEUE) as queue:
        for batch in _batches(ids, _AT_ONCE):
            await asyncio.gather(*(queue.publish(Delivery(image_id=image_id)) for image_id in batch))


async def until_consumed_by(cluster: LocalCluster, workers: int) -> None:
    """Return when so many consumers wait for messages."""
    async with channel_to(cluster.rabbitmq.url) as channel:

        async def all_there() -> bool:
            return (await channel.declare_queue(QUEUE, passive=True)).declaration_result.consumer_count == workers

        await eventually(all_there, timeout=_CONNECT_LIMIT)


def _link(cluster: LocalCluster, ids: Sequence[UUID], original: Path) -> None:
    """Files that share their bytes: a hundred thousand pictures need no room."""
    template = original
    for number, image_id in enumerate(ids):
        if number and number % _MOST_LINKS == 0:
            template = original.with_name(f"{original.name}-{number}")
            template.write_bytes(original.read_bytes())
        file = cluster.file(original_key(image_id))
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(template, file)


def _batches(ids: Sequence[UUID], size: int) -> Iterator[list[UUID]]:
    left = iter(ids)
    while batch := list(islice(left, size)):
        yield batch
