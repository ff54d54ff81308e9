"""Images in every state, recorded through the repositories, without files."""

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
from image_service.database.scheduling import UnfinishedImage
from image_service.domain.event import Event
from image_service.domain.image import Claim, Image, ImageError, ImageFormat, ImageHeader, Original, Result, Thumbnail
from image_service.domain.keys import thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models import EventRow, ImageRow, RemovalRow, ThumbnailRow

T = TypeVar("T")

SUPERSEDED_FOR = 600.0
RECIPE = "0123456789abcdef"
ERROR = ImageError(code="corrupt-image", detail="Export the image again.")

RecordImage = Callable[[Database], Awaitable[UUID]]


async def in_transaction(database: Database, query: Callable[[Repositories], Awaitable[T]]) -> T:
    """Run a query in a transaction of its own."""
    async with database.transaction() as repositories:
        return await query(repositories)


async def concurrently(database: Database, *queries: Callable[[Repositories], Awaitable[T]]) -> list[T]:
    """Run each query in a transaction of its own, all of which begin before any ends."""
    barrier = asyncio.Barrier(len(queries))

    async def one(query: Callable[[Repositories], Awaitable[T]]) -> T:
        async with database.transaction() as repositories:
            await barrier.wait()
            return await query(repositories)

    return await asyncio.gather(*(one(query) for query in queries))


def upload(**changes: Any) -> Original:  # noqa: ANN401  (fields of Original)
    original = Original(
        id=uuid4(),
        header=ImageHeader(format=ImageFormat.PNG, width=640, height=480),
        size_bytes=1234,
        sha256="ab" * 32,
    )
    return replace(original, **changes)


def thumbnail(claim: Claim, preset: str = "100x100", width: int = 100) -> Thumbnail:
    return Thumbnail(
        output=preset,
        key=thumbnail_key(claim.image_id, claim.attempt, preset),
        content_type="image/jpeg",
        width=width,
        height=75,
        size_bytes=999,
        sha256="cd" * 32,
    )


def rendered(*thumbnails: Thumbnail, **changes: Any) -> Result:  # noqa: ANN401  (fields of Result)
    return replace(Result(width=480, height=640, thumbnails=thumbnails, traits=TRAITS, recipe=RECIPE), **changes)


async def add(
    database: Database, original: Original, due_in: float = 60, lane: Lane = Lane.NORMAL, key: str | None = None
) -> None:
    await in_transaction(database, lambda r: r.images.add(original, lane=lane, due_in=due_in, idempotency_key=key))


async def recorded(database: Database, due_in: float = 60, lane: Lane = Lane.NORMAL) -> UUID:
    """Record a NEW image."""
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
    """Record an image in DONE or ERROR; returns the claim that finished it."""
    claim = await claimed(database, await recorded(database))
    if status is Status.DONE:
        assert await complete(database, claim)
    else:
        assert await in_transaction(database, lambda r: r.claims.fail(claim, ERROR))
    return claim


async def leased(database: Database) -> UUID:
    return (await claimed(database, await queued(database))).image_id


async def done(database: Database) -> UUID:
    return (await finished(database, Status.DONE)).image_id


async def failed(database: Database) -> UUID:
    return (await finished(database, Status.ERROR)).image_id


UNFINISHED: tuple[RecordImage, ...] = (recorded, queued, leased)
FINISHED: tuple[RecordImage, ...] = (done, failed)

ClaimChange = Callable[[Repositories, Claim], Awaitable[bool]]
CLAIM_CHANGES: dict[str, ClaimChange] = {
    "extend": lambda r, claim: r.claims.extend(claim, lease=60),
    "complete": lambda r, claim: r.claims.complete(claim, rendered(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    "fail": lambda r, claim: r.claims.fail(claim, ERROR),
    "release": lambda r, claim: r.claims.release(claim, rest=-1, due_in=-1, charge=False, decoder_failed=True),
}
"""Everything that the holder of a claim can do with it."""


async def mark_queued(database: Database, image_id: UUID, due_in: float = 60) -> bool:
    return await in_transaction(database, lambda r: r.scheduling.mark_queued(image_id, due_in=due_in))


async def try_claim(database: Database, image_id: UUID, lease: float = 60) -> Claim | None:
    return await in_transaction(database, lambda r: r.claims.claim(image_id, lease=lease))


async def complete(database: Database, claim: Claim, *thumbnails: Thumbnail) -> bool:
    result = rendered(*thumbnails or (thumbnail(claim),))
    return await in_transaction(database, lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))


async def release(
    database: Database, claim: Claim, rest: float = -1, *, charge: bool, decoder_failed: bool = False
) -> bool:
    return await in_transaction(
        database,
        lambda r: r.claims.release(claim, rest=rest, due_in=60, charge=charge, decoder_failed=decoder_failed),
    )


async def due(database: Database, limit: int = 100) -> Sequence[UnfinishedImage]:
    return await in_transaction(database, lambda r: r.scheduling.due(limit=limit))


async def unclaimed(
    database: Database, queued_before: float = -1, limit: int = 100, lane: Lane = Lane.NORMAL
) -> Sequence[UnfinishedImage]:
    return await in_transaction(
        database, lambda r: r.scheduling.unclaimed(lane, queued_before=queued_before, limit=limit)
    )


async def reserve(database: Database, unfinished: UnfinishedImage, due_in: float = 60) -> bool:
    return await in_transaction(database, lambda r: r.scheduling.reserve_for_publish(unfinished, due_in=due_in))


async def image(database: Database, image_id: UUID) -> Image:
    """An image that must be recorded."""
    found = await in_transaction(database, lambda r: r.images.get(image_id))
    assert found is not None
    return found


async def recorded_events(database: Database) -> list[Event]:
    """All events, settled or not, as they were recorded."""
    async with database.transaction() as repositories:
        numbers = (await repositories.connection.execute(select(EventRow.number))).scalars().all()
        return sorted((await repositories.events.by_number(numbers)).values(), key=lambda event: event.position.number)


async def status_of(database: Database, image_id: UUID) -> Status:
    return (await image(database, image_id)).status


async def row(database: Database, image_id: UUID) -> dict[str, Any]:
    """All columns of an image, and the presets of its thumbnails."""
    async with database.transaction() as repositories:
        connection = repositories.connection
        images = await connection.execute(select(*ImageRow.__table__.c).where(ImageRow.id == image_id))
        thumbnails = await connection.execute(select(ThumbnailRow.output).where(ThumbnailRow.image_id == image_id))
        return {**images.mappings().one(), "thumbnails": sorted(thumbnails.scalars())}


async def execute(database: Database, statement: Any, parameters: Any = None) -> None:  # noqa: ANN401  (as SQLAlchemy types it)
    async with database.transaction() as repositories:
        await repositories.connection.execute(statement, parameters)


async def shift(database: Database, image_id: UUID, **seconds: float) -> None:
    """Set times of an image to so many seconds from now."""
    values = {column: in_seconds(offset) for column, offset in seconds.items()}
    await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(**values))


def close_to(time: datetime | None, other: datetime) -> bool:
    return time is not None and abs(time - other) < timedelta(minutes=1)


def ids(images: Sequence[UnfinishedImage]) -> list[UUID]:
    return [each.id for each in images]


async def reprocess(database: Database, *image_ids: UUID, due_in: float = 60, **options: Any) -> set[UUID]:  # noqa: ANN401  (options of the query)
    return await in_transaction(database, lambda r: r.images.reprocess(image_ids, due_in=due_in, **options))


async def remove(database: Database, *image_ids: UUID, only_finished: bool = False) -> set[str]:
    return set(await in_transaction(database, lambda r: r.images.remove(image_ids, only_finished=only_finished)))


async def remove_originals(database: Database, *image_ids: UUID) -> set[str]:
    return set(await in_transaction(database, lambda r: r.images.remove_originals(image_ids)))


async def removals(database: Database) -> dict[str, float]:
    """The keys of files recorded for removal, with the seconds until they are due."""
    statement = select(RemovalRow.key, RemovalRow.due_at, in_seconds(0))
    async with database.transaction() as repositories:
        rows = (await repositories.connection.execute(statement)).all()
    return {key: (due_at - now).total_seconds() for key, due_at, now in rows}


def due_now(seconds: float) -> bool:
    return -60 < seconds <= 0


def due_when_superseded(seconds: float) -> bool:
    return SUPERSEDED_FOR - 60 < seconds <= SUPERSEDED_FOR
