"""Recording and reading images, on SQLite and PostgreSQL."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import IntegrityError

from harness.rows import (
    add,
    claimed,
    close_to,
    complete,
    concurrently,
    execute,
    finished,
    in_transaction,
    mark_queued,
    queued,
    recorded,
    remove,
    row,
    shift,
    thumbnail,
    try_claim,
    upload,
)
from image_service.database import Database, Repositories
from image_service.domain.image import ImageFormat, ImageHeader, Original
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models import ImageRow, ThumbnailRow


async def test_added_image_can_be_read_back(database: Database) -> None:
    original = upload(size_bytes=5 * 2**30)
    await add(database, original, 15)
    image = await in_transaction(database, lambda r: r.images.get(original.id))
    assert image is not None
    assert (image.id, image.status, image.header) == (original.id, Status.NEW, original.header)
    assert (image.size_bytes, image.sha256) == (5 * 2**30, "ab" * 32)
    assert (image.finished_at, image.error, image.traits, image.thumbnails) == (None, None, None, ())
    assert close_to(image.created_at, image.updated_at)


@pytest.mark.parametrize("image_format", ImageFormat)
async def test_every_format_can_be_recorded(database: Database, image_format: ImageFormat) -> None:
    original = upload(header=ImageHeader(format=image_format, width=1, height=20_000))
    await add(database, original, 15)
    image = await in_transaction(database, lambda r: r.images.get(original.id))
    assert image is not None
    assert image.header == original.header


async def test_unknown_id_is_not_found_nor_queued_nor_claimed(database: Database) -> None:
    await recorded(database)
    assert await in_transaction(database, lambda r: r.images.get(uuid4())) is None
    assert not await mark_queued(database, uuid4())
    assert await try_claim(database, uuid4()) is None


async def test_adding_twice_records_once(database: Database) -> None:
    original = upload()
    await add(database, original, 15)
    before = await row(database, original.id)
    await add(database, original, 30)
    assert await row(database, original.id) == before


async def test_adding_again_does_not_reset_a_finished_image(database: Database) -> None:
    original = upload()
    await add(database, original, 15)
    await complete(database, await claimed(database, original.id))
    before = await row(database, original.id)
    await add(database, original, 15)
    assert await row(database, original.id) == before


async def by_idempotency_key(database: Database, key: str) -> UUID | None:
    """The image that has an idempotency key."""
    image = await in_transaction(database, lambda r: r.images.by_idempotency_key(key))
    return None if image is None else image.id


async def test_image_is_found_by_idempotency_key(database: Database) -> None:
    one, other, without = upload(), upload(), upload()
    await add(database, one, key="key")
    await add(database, other, key="another key")
    await add(database, without)
    assert [await by_idempotency_key(database, key) for key in ("key", "another key", "none")] == [
        one.id,
        other.id,
        None,
    ]
    claim = await claimed(database, one.id)
    await complete(database, claim)
    found = await in_transaction(database, lambda r: r.images.by_idempotency_key("key"))
    assert found == await in_transaction(database, lambda r: r.images.get(one.id))
    assert found is not None
    assert found.thumbnails == (thumbnail(claim),)


async def test_several_images_may_have_no_idempotency_key(database: Database) -> None:
    images = [await recorded(database) for _ in range(3)]
    assert await in_transaction(database, lambda r: r.images.existing(images)) == set(images)


async def test_second_image_with_the_same_idempotency_key_is_not_recorded(database: Database) -> None:
    first, second = upload(), upload()
    await add(database, first, key="key")
    before = await row(database, first.id)
    await add(database, second, key="key")
    assert await in_transaction(database, lambda r: r.images.existing([first.id, second.id])) == {first.id}
    assert await row(database, first.id) == before
    assert await by_idempotency_key(database, "key") == first.id


async def test_adding_twice_with_an_idempotency_key_records_once(database: Database) -> None:
    original = upload()
    await add(database, original, key="key")
    before = await row(database, original.id)
    await add(database, original, key="key")
    assert await row(database, original.id) == before
    assert await by_idempotency_key(database, "key") == original.id


async def test_concurrent_adds_with_one_idempotency_key_record_one_image_that_all_see(
    database: Database,
) -> None:
    originals = [upload() for _ in range(6)]

    def adding(original: Original) -> Callable[[Repositories], Awaitable[UUID | None]]:
        async def add_and_ask(repositories: Repositories) -> UUID | None:
            images = repositories.images
            await images.add(original, lane=Lane.NORMAL, due_in=60, idempotency_key="key")
            holder = await images.by_idempotency_key("key")
            return None if holder is None else holder.id

        return add_and_ask

    seen = await concurrently(database, *map(adding, originals))
    (recorded_one,) = await in_transaction(
        database, lambda r: r.images.existing([original.id for original in originals])
    )
    assert seen == [recorded_one] * 6


async def test_idempotency_key_can_be_used_again_after_removal(database: Database) -> None:
    first, second = upload(), upload()
    await add(database, first, key="key")
    await remove(database, first.id)
    assert await by_idempotency_key(database, "key") is None
    await add(database, second, key="key")
    assert await by_idempotency_key(database, "key") == second.id


async def test_times_are_timezone_aware_utc_and_current(database: Database) -> None:
    claim = await claimed(database, await queued(database), lease=3600)
    open_row = await row(database, claim.image_id)
    await complete(database, claim)
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.finished_at is not None
    times = [image.created_at, image.updated_at, image.finished_at, open_row["queued_at"]]
    times += [open_row["lease_until"] - timedelta(hours=1), open_row["due_at"] - timedelta(hours=1)]
    for time in times:
        assert time.utcoffset() == timedelta(0)
        assert close_to(time, datetime.now(UTC))


async def test_times_have_fractions_of_a_second(database: Database) -> None:
    image_id = await recorded(database, due_in=3599.75)
    await shift(database, image_id, created_at=3600)
    times = await row(database, image_id)
    assert timedelta(0) < times["created_at"] - times["due_at"] < timedelta(minutes=1)
    assert times["due_at"].microsecond or times["created_at"].microsecond


async def test_existing_returns_recorded_images(database: Database) -> None:
    new = await recorded(database)
    done = (await finished(database, Status.DONE)).image_id
    await recorded(database)
    asked = [new, done, *(uuid4() for _ in range(1000))]
    assert await in_transaction(database, lambda r: r.images.existing(asked)) == {new, done}
    assert await in_transaction(database, lambda r: r.images.existing([])) == set()


async def test_thumbnail_keys_are_those_of_the_given_images(database: Database) -> None:
    one, other = [await claimed(database, await recorded(database)) for _ in range(2)]
    thumbnails = [thumbnail(one, "100x100"), thumbnail(one, "300x300")]
    await complete(database, one, *thumbnails)
    await complete(database, other)
    asked = [one.image_id, await recorded(database), uuid4()]
    assert await in_transaction(database, lambda r: r.images.thumbnail_keys(asked)) == {item.key for item in thumbnails}
    assert await in_transaction(database, lambda r: r.images.thumbnail_keys([])) == set()


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("positive", {"width": 0}),
        ("positive", {"height": -1}),
        ("positive", {"size_bytes": 0}),
        ("error_has_code", {"status": "ERROR", "due_at": None}),
        ("error_has_code", {"error_code": "corrupt-image"}),
        ("open_is_due", {"due_at": None}),
        ("open_is_due", {"status": "DONE"}),
        ("status", {"status": "LOST"}),
    ],
)
async def test_constraints_refuse_impossible_rows(
    database: Database, constraint: str, values: dict[str, object]
) -> None:
    image_id = await recorded(database)
    before = await row(database, image_id)
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    with pytest.raises(IntegrityError, match=f"ck_images_{constraint}"):
        await execute(database, text(f"UPDATE images SET {assignments}"), values)  # noqa: S608  (our own columns)
    assert await row(database, image_id) == before


async def test_thumbnail_requires_its_image_and_is_deleted_with_it(database: Database) -> None:
    claim = await finished(database, Status.DONE)
    values = {**asdict(thumbnail(claim)), "image_id": uuid4()}
    with pytest.raises(IntegrityError):
        await execute(database, insert(ThumbnailRow).values(**values))
    await execute(database, delete(ImageRow).where(ImageRow.id == claim.image_id))
    assert await in_transaction(database, lambda r: r.images.thumbnail_keys([claim.image_id])) == set()
