"""Creates a backlog without uploads: the rows, files and messages that uploads would leave."""

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
_MAX_LINKS: Final = 10_000
"""Hard links to one file; ext4 allows 65,000."""
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
    """Record images in the normal lane as queued, with their files, without publishing a message.

    Args:
        cluster: The service.
        count: Number of images.
        original: The original of all of them, on the disk of the storage.
        files: Number of images, from the first on, that get a file; None for all.

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
    """Publish a message for each image."""
    async with started(cluster.rabbitmq.url, QUEUE) as queue:
        for batch in _batches(ids, _AT_ONCE):
            await asyncio.gather(*(queue.publish(Delivery(image_id=image_id)) for image_id in batch))


async def until_consumed_by(cluster: LocalCluster, workers: int) -> None:
    """Return when ``workers`` consumers wait for messages."""
    async with channel_to(cluster.rabbitmq.url) as channel:

        async def all_connected() -> bool:
            return (await channel.declare_queue(QUEUE, passive=True)).declaration_result.consumer_count == workers

        await eventually(all_connected, timeout=_CONNECT_LIMIT)


def _link(cluster: LocalCluster, ids: Sequence[UUID], original: Path) -> None:
    """Hard-link the originals to one file, so that a hundred thousand of them need no space."""
    template = original
    for number, image_id in enumerate(ids):
        if number and number % _MAX_LINKS == 0:
            template = original.with_name(f"{original.name}-{number}")
            template.write_bytes(original.read_bytes())
        file = cluster.file(original_key(image_id))
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(template, file)


def _batches(ids: Sequence[UUID], size: int) -> Iterator[list[UUID]]:
    left = iter(ids)
    while batch := list(islice(left, size)):
        yield batch
