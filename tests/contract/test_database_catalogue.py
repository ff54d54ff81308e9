"""Queries over many images, on SQLite and PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import update
from uuid_utils.compat import uuid7

from harness.rows import (
    ERROR,
    RECIPE,
    add,
    claimed,
    complete,
    execute,
    finished,
    in_transaction,
    mark_queued,
    queued,
    recorded,
    remove_originals,
    reprocess,
    shift,
    thumbnail,
    upload,
)
from image_service.database import Database
from image_service.domain.image import ImageError, MetadataKind
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models import ImageRow, ThumbnailRow

OTHER_RECIPE = "fedcba9876543210"


async def uploaded(database: Database, status: Status = Status.NEW) -> UUID:
    """Record an image with an id like those of the service, which are in the order of upload."""
    original = upload(id=uuid7())
    await add(database, original)
    if status is Status.PROCESSING:
        await mark_queued(database, original.id)
    elif status is Status.DONE:
        await complete(database, await claimed(database, original.id))
    elif status is Status.ERROR:
        claim = await claimed(database, original.id)
        await in_transaction(database, lambda r: r.claims.fail(claim, ERROR))
    return original.id


async def newest(
    database: Database, limit: int = 100, before: UUID | None = None, status: Status | None = None
) -> list[UUID]:
    found = await in_transaction(database, lambda r: r.catalogue.newest(limit=limit, before=before, status=status))
    return [image.id for image in found]


async def oldest(database: Database, limit: int = 100, after: UUID | None = None) -> list[UUID]:
    found = await in_transaction(database, lambda r: r.catalogue.oldest(limit=limit, after=after))
    return [image.id for image in found]


async def outdated(
    database: Database, recipe: str = RECIPE, among: int = 100, after: UUID | None = None
) -> dict[UUID, bool | None]:
    return await in_transaction(database, lambda r: r.catalogue.outdated({"default": recipe}, among=among, after=after))


async def open_count(database: Database, limit: int = 100, lane: Lane | None = None) -> int:
    return await in_transaction(database, lambda r: r.catalogue.open_count(limit=limit, lane=lane))


async def test_newest_returns_pages_newest_first(database: Database) -> None:
    images = [await uploaded(database) for _ in range(5)][::-1]
    assert await newest(database) == images
    assert await newest(database, limit=2) == images[:2]
    assert await newest(database, limit=2, before=images[1]) == images[2:4]
    assert await newest(database, limit=2, before=images[3]) == images[4:]
    assert await newest(database, before=images[4]) == []


async def test_page_can_start_at_a_removed_image(database: Database) -> None:
    images = [await uploaded(database) for _ in range(3)][::-1]
    await in_transaction(database, lambda r: r.images.remove([images[1]]))
    assert await newest(database, before=images[1]) == images[2:]


@pytest.mark.parametrize("status", Status)
async def test_newest_can_be_limited_to_one_state(database: Database, status: Status) -> None:
    images = [await uploaded(database, each) for each in (*Status, *Status, *Status)]
    expected = images[list(Status).index(status) :: len(Status)][::-1]
    assert await newest(database, status=status) == expected
    assert await newest(database, status=status, limit=1, before=expected[0]) == expected[1:2]


async def test_page_contains_images_with_their_thumbnails(database: Database) -> None:
    bare = await uploaded(database)
    claim = await claimed(database, await uploaded(database))
    made = (thumbnail(claim, "100x100"), thumbnail(claim, "300x300", 300))
    await complete(database, claim, *made[::-1])
    failed = await uploaded(database, Status.ERROR)
    page = await in_transaction(database, lambda r: r.catalogue.newest(limit=10))
    assert [(image.id, image.thumbnails, image.error) for image in page] == [
        (failed, (), ERROR),
        (claim.image_id, made, None),
        (bare, (), None),
    ]
    for image in page:
        assert image == await in_transaction(database, lambda r, i=image.id: r.images.get(i))  # type: ignore[misc]
    assert [image.id for image in await in_transaction(database, lambda r: r.catalogue.newest(limit=2))] == [
        failed,
        claim.image_id,
    ], "a limit counts images, not thumbnails"


async def test_oldest_returns_pages_oldest_first(database: Database) -> None:
    images = [await uploaded(database, status) for status in (*Status, Status.NEW)]
    assert await oldest(database) == images
    assert await oldest(database, limit=2) == images[:2]
    assert await oldest(database, limit=2, after=images[1]) == images[2:4]
    assert await oldest(database, after=images[-1]) == []


async def test_unfinished_images_are_counted_up_to_a_limit(database: Database) -> None:
    assert await open_count(database) == 0
    await recorded(database)
    await queued(database)
    await claimed(database, await recorded(database))
    for end in (Status.DONE, Status.ERROR):
        await finished(database, end)
    assert await open_count(database) == 3
    assert await open_count(database, limit=3) == 3
    assert await open_count(database, limit=2) == 2


async def test_unfinished_images_are_counted_per_lane(database: Database) -> None:
    for lane, images in ((Lane.NORMAL, 1), (Lane.EXPRESS, 2), (Lane.BACKFILL, 3)):
        for _ in range(images):
            await recorded(database, lane=lane)
    ended = await recorded(database, lane=Lane.BACKFILL)
    await complete(database, await claimed(database, ended))
    assert [await open_count(database, lane=lane) for lane in (Lane.NORMAL, Lane.EXPRESS, Lane.BACKFILL)] == [1, 2, 3]
    assert await open_count(database, lane=Lane.BACKFILL, limit=2) == 2
    assert await open_count(database) == 6


async def test_overdue_returns_images_due_for_longer_than_given(database: Database) -> None:
    second, first = await recorded(database, due_in=-100), await recorded(database, due_in=-200)
    await recorded(database, due_in=-50)
    await recorded(database, due_in=60)
    await finished(database, Status.DONE)
    assert await in_transaction(database, lambda r: r.catalogue.overdue(seconds=75, limit=10)) == [first, second]
    assert await in_transaction(database, lambda r: r.catalogue.overdue(seconds=75, limit=1)) == [first]
    assert await in_transaction(database, lambda r: r.catalogue.overdue(seconds=150, limit=10)) == [first]


async def test_failed_returns_images_in_error_oldest_first_by_code(database: Database) -> None:
    failed = [await uploaded(database, Status.ERROR) for _ in range(3)]
    for status in (Status.NEW, Status.PROCESSING, Status.DONE):
        await uploaded(database, status)
    other = await claimed(database, await uploaded(database))
    await in_transaction(
        database, lambda r: r.claims.fail(other, ImageError(code="decoder-timeout", detail="Too slow."))
    )
    assert await in_transaction(database, lambda r: r.catalogue.failed(limit=10)) == [*failed, other.image_id]
    assert await in_transaction(database, lambda r: r.catalogue.failed(limit=2, after=failed[0])) == failed[1:]
    assert await in_transaction(database, lambda r: r.catalogue.failed(limit=10, code=ERROR.code)) == failed
    assert await in_transaction(database, lambda r: r.catalogue.failed(limit=10, code="decoder-timeout")) == [
        other.image_id
    ]


async def test_image_of_another_recipe_or_of_none_is_outdated(
    database: Database,
) -> None:
    old, unknown, current = [await uploaded(database, Status.DONE) for _ in range(3)]
    for image_id, recipe in ((old, OTHER_RECIPE), (unknown, None)):
        await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(recipe=recipe))
    assert await outdated(database) == {old: True, unknown: True, current: False}
    assert await outdated(database, OTHER_RECIPE) == {old: False, unknown: True, current: True}


async def test_outdated_examines_a_limited_number_of_images_oldest_first(database: Database) -> None:
    images = [await uploaded(database, Status.DONE) for _ in range(4)]
    assert list(await outdated(database)) == images
    assert list(await outdated(database, among=2)) == images[:2]
    assert list(await outdated(database, among=2, after=images[1])) == images[2:]
    assert await outdated(database, after=images[3]) == {}


@pytest.mark.parametrize("status", [Status.NEW, Status.PROCESSING, Status.ERROR])
async def test_image_that_is_not_done_is_not_outdated(database: Database, status: Status) -> None:
    image_id = await uploaded(database, status)
    assert await outdated(database, OTHER_RECIPE) == {image_id: False}


async def test_image_without_an_original_is_not_outdated(database: Database) -> None:
    image_id = await uploaded(database, Status.DONE)
    await remove_originals(database, image_id)
    assert await outdated(database, OTHER_RECIPE) == {image_id: False}


async def test_image_being_reprocessed_is_not_outdated(database: Database) -> None:
    image_id = await uploaded(database, Status.DONE)
    await reprocess(database, image_id)
    assert await outdated(database, OTHER_RECIPE) == {image_id: False}


async def test_finished_before_returns_the_earliest_finished_first(database: Database) -> None:
    second, first, third = [(await finished(database, end)).image_id for end in (Status.DONE, Status.ERROR) * 2][:3]
    for image_id, finished_at in ((first, -300), (second, -200), (third, -100)):
        await shift(database, image_id, finished_at=finished_at)
    for query in ("finished_before", "with_original_finished_before"):

        async def ask(seconds: float, limit: int = 10, query: str = query) -> Sequence[UUID]:
            found: Sequence[UUID] = await in_transaction(
                database, lambda r: getattr(r.catalogue, query)(seconds, limit=limit)
            )
            return found

        assert await ask(50) == [first, second, third]
        assert await ask(150) == [first, second]
        assert await ask(50, limit=1) == [first]
        assert await ask(400) == []


async def test_image_being_reprocessed_does_not_count_as_finished(database: Database) -> None:
    image_id = (await finished(database, Status.DONE)).image_id
    await shift(database, image_id, finished_at=-300)
    await reprocess(database, image_id)
    assert await in_transaction(database, lambda r: r.catalogue.finished_before(100, limit=10)) == []
    assert await in_transaction(database, lambda r: r.catalogue.with_original_finished_before(100, limit=10)) == []
    await complete(database, await claimed(database, image_id))
    assert await in_transaction(database, lambda r: r.catalogue.finished_before(100, limit=10)) == []


async def test_with_original_finished_before_omits_images_without_an_original(database: Database) -> None:
    image_id = (await finished(database, Status.DONE)).image_id
    await shift(database, image_id, finished_at=-300)
    await remove_originals(database, image_id)
    assert await in_transaction(database, lambda r: r.catalogue.finished_before(100, limit=10)) == [image_id]
    assert await in_transaction(database, lambda r: r.catalogue.with_original_finished_before(100, limit=10)) == []


async def test_database_identity_does_not_change(database: Database) -> None:
    identity = await in_transaction(database, lambda r: r.catalogue.identity())
    await recorded(database)
    assert await in_transaction(database, lambda r: r.catalogue.identity()) == identity


@pytest.mark.parametrize(
    ("column", "value", "read"),
    [
        ("dominant_colour", "<b>", None),
        ("dominant_colour", "#C0FFEE", None),
        ("metadata_removed", ["exif", "secrets", 7, ["gps"]], (MetadataKind.EXIF,)),
        ("metadata_removed", {"exif": 1}, ()),
        ("metadata_removed", "exif", ()),
        ("metadata_removed", None, ()),
    ],
)
async def test_malformed_trait_is_left_out(database: Database, column: str, value: object, read: object) -> None:
    good, bad = [await uploaded(database, Status.DONE) for _ in range(2)]
    await execute(database, update(ImageRow).where(ImageRow.id == bad).values({column: value}))
    images = await in_transaction(database, lambda r: r.catalogue.newest(limit=10))
    assert [image.id for image in images] == [bad, good]
    malformed, whole = (image.traits for image in images)
    assert whole is not None
    assert malformed == replace(whole, **{column: read})  # type: ignore[arg-type]  # of the column


@pytest.mark.parametrize("placeholder", ["", "x", "<script>", "AAAA\r\nAAAA", "=" * 64])
async def test_image_with_a_malformed_placeholder_has_no_traits(database: Database, placeholder: str) -> None:
    image_id = await uploaded(database, Status.DONE)
    await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(placeholder=placeholder))
    (image,) = await in_transaction(database, lambda r: r.catalogue.newest(limit=10))
    assert image.traits is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("content_type", "text/html"),
        ("content_type", "image/svg+xml"),
        ("content_type", "image/jpeg\r\nX-Evil: 1"),
        ("sha256", "ab" * 31 + "\r\n"),
        ("sha256", "AB" * 32),
        ("sha256", ""),
    ],
)
async def test_thumbnail_that_cannot_be_served_is_left_out(database: Database, column: str, value: str) -> None:
    image_id = await uploaded(database, Status.DONE)
    await execute(database, update(ThumbnailRow).where(ThumbnailRow.image_id == image_id).values({column: value}))
    (image,) = await in_transaction(database, lambda r: r.catalogue.newest(limit=10))
    assert (image.status, image.thumbnails) == (Status.DONE, ())


async def test_detail_of_an_error_is_read_as_one_short_line(database: Database) -> None:
    image_id = await uploaded(database, Status.ERROR)
    detail = "one\r\ntwo" + "x" * 60_000
    await execute(database, update(ImageRow).where(ImageRow.id == image_id).values(error_detail=detail))
    (image,) = await in_transaction(database, lambda r: r.catalogue.newest(limit=10))
    assert image.error == ImageError(code=ERROR.code, detail=("one  two" + "x" * 60_000)[:300])
