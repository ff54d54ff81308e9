"""Rows without files: images in every state, as the repositories make them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import select, update

from harness.fakes import TRAITS
from image_service.database import Database, Repositories
from image_service.database.clock import in_seconds
from image_service.database.scheduling import OpenImage
from image_service.domain.image import Claim, ImageError, ImageFormat, ImageHeader, Original, Result, Thumbnail
from image_service.domain.keys import thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models import ImageRow, RemovalRow, ThumbnailRow

Answer = TypeVar("Answer")

SUPERSEDED_FOR = 600.0
RECIPE = "0123456789abcdef"
ERROR = ImageError(code="corrupt-image", detail="Export the image again.")


async def run(database: Database, query: Callable[[Repositories], Awaitable[Answer]]) -> Answer:
    """One query in a transaction of its own."""
    async with database.transaction() as repositories:
        return await query(repositories)


async def at_once(database: Database, *queries: Callable[[Repositories], Awaitable[Answer]]) -> list[Answer]:
    """Each query in a transaction of its own, none of which ends before all have begun."""
    barrier = asyncio.Barrier(len(queries))

    async def one(query: Callable[[Repositories], Awaitable[Answer]]) -> Answer:
        async with database.transaction() as repositories:
            await barrier.wait()
            return await query(repositories)

    return await asyncio.gather(*(one(query) for query in queries))


def upload(**changes: Any) -> Original:  # noqa: ANN401  (an original's own fields)
    original = Original(
        id=uuid4(),
        header=ImageHeader(format=ImageFormat.PNG, width=640, height=480),
        size_bytes=1234,
        sha256="ab" * 32,
    )
    return replace(original, **changes)


def thumbnail(claim: Claim, preset: str = "100x100", width: int = 100) -> Thumbnail:
    return Thumbnail(
        preset=preset,
        key=thumbnail_key(claim.image_id, claim.attempt, preset),
        content_type="image/jpeg",
        width=width,
        height=75,
        size_bytes=999,
        sha256="cd" * 32,
    )


def made(*thumbnails: Thumbnail, **changes: Any) -> Result:  # noqa: ANN401  (a result's own fields)
    return replace(Result(width=480, height=640, thumbnails=thumbnails, traits=TRAITS, recipe=RECIPE), **changes)


async def add(
    database: Database, original: Original, due_in: float = 60, lane: Lane = Lane.NORMAL, key: str | None = None
) -> None:
    await run(database, lambda r: r.images.add(original, lane=lane, due_in=due_in, idempotency_key=key))


async def recorded(database: Database, due_in: float = 60, lane: Lane = Lane.NORMAL) -> UUID:
    """A new image."""
    original = upload()
    await add(database, original, due_in, lane)
    return original.id


async def queued(database: Database, due_in: float = 60, lane: Lane = Lane.NORMAL) -> UUID:
    image_id = await recorded(database, lane=lane)
    assert await mark_queued(database, image_id, due_in)
    return image_id


async def claimed(database: Database, image_id: UUID, lease: float = 60) -> Claim:
    claim = await try_claim(database, image_id, lease)
    assert claim is not None
    return claim


async def finished(database: Database, status: Status) -> Claim:
    """An image that ended, by the claim that ended it."""
    claim = await claimed(database, await recorded(database))
    if status is Status.DONE:
        assert await complete(database, claim)
    else:
        assert await run(database, lambda r: r.claims.fail(claim, ERROR))
    return claim


async def mark_queued(database: Database, image_id: UUID, due_in: float = 60) -> bool:
    return await run(database, lambda r: r.scheduling.mark_queued(image_id, due_in=due_in))


async def try_claim(database: Database, image_id: UUID, lease: float = 60) -> Claim | None:
    return await run(database, lambda r: r.claims.claim(image_id, lease=lease))


async def complete(database: Database, claim: Claim, *thumbnails: Thumbnail) -> bool:
    result = made(*thumbnails or (thumbnail(claim),))
    return await run(database, lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))


async def release(
    database: Database, claim: Claim, rest: float = -1, *, charge: bool, decoder_failed: bool = False
) -> bool:
    return await run(
        database,
        lambda r: r.claims.release(claim, rest=rest, due_in=60, charge=charge, decoder_failed=decoder_failed),
    )


async def due(database: Database, limit: int = 100) -> Sequence[OpenImage]:
    return await run(database, lambda r: r.scheduling.due(limit=limit))


async def unclaimed(
    database: Database, queued_before: float = -1, limit: int = 100, lane: Lane = Lane.NORMAL
) -> Sequence[OpenImage]:
    return await run(database, lambda r: r.scheduling.unclaimed(lane, queued_before=queued_before, limit=limit))


async def take(database: Database, image: OpenImage, due_in: float = 60) -> bool:
    return await run(database, lambda r: r.scheduling.reserve_for_publish(image, due_in=due_in))


async def status_of(database: Database, image_id: UUID) -> Status:
    image = await run(database, lambda r: r.images.get(image_id))
    assert image is not None
    return image.status


async def row(database: Database, image_id: UUID) -> dict[str, Any]:
    """Everything recorded about an image, and how many thumbnails it has."""
    async with database.transaction() as repositories:
        connection = repositories.connection
        images = await connection.execute(select(*ImageRow.__table__.c).where(ImageRow.id == image_id))
        thumbnails = await connection.execute(select(ThumbnailRow.preset).where(ThumbnailRow.image_id == image_id))
        return {**images.mappings().one(), "thumbnails": sorted(thumbnails.scalars())}


async def execute(database: Database, statement: Any, parameters: Any = None) -> None:  # noqa: ANN401  (SQLAlchemy's own)
    async with database.transaction() as repositories:
        await repositories.connection.execute(statement, parameters)


async def shift(database: Database, image_id: UUID, **seconds: float) -> None:
    """Move an image's times to so many seconds from now."""
    values = {column: in_seconds(offset) for column, offset in seconds.items()}
    await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(**values))


def close(time: datetime | None, other: datetime) -> bool:
    return time is not None and abs(time - other) < timedelta(minutes=1)


def ids(images: Sequence[OpenImage]) -> list[UUID]:
    return [image.id for image in images]


async def reprocess(database: Database, *image_ids: UUID, due_in: float = 60, **options: Any) -> set[UUID]:  # noqa: ANN401  (the query's own)
    return await run(database, lambda r: r.images.reprocess(image_ids, due_in=due_in, **options))


async def remove(database: Database, *image_ids: UUID, only_finished: bool = False) -> set[str]:
    return set(await run(database, lambda r: r.images.remove(image_ids, only_finished=only_finished)))


async def remove_originals(database: Database, *image_ids: UUID) -> set[str]:
    return set(await run(database, lambda r: r.images.remove_originals(image_ids)))


async def removals(database: Database) -> dict[str, float]:
    """The files that are to be removed, with the seconds until then."""
    statement = select(RemovalRow.key, RemovalRow.due_at, in_seconds(0))
    async with database.transaction() as repositories:
        rows = (await repositories.connection.execute(statement)).all()
    return {key: (due_at - now).total_seconds() for key, due_at, now in rows}
