"""What the database owes its users, on SQLite and PostgreSQL alike: every query, and who wins a race."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import TextClause, delete, insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from harness.fakes import LONG_TIMEOUT, TRAITS
from harness.processes import free_port
from harness.rows import (
    ERROR,
    SUPERSEDED_FOR,
    add,
    at_once,
    claimed,
    close,
    complete,
    due,
    execute,
    finished,
    ids,
    made,
    mark_queued,
    queued,
    recorded,
    release,
    remove,
    row,
    run,
    shift,
    status_of,
    take,
    thumbnail,
    try_claim,
    unclaimed,
    upload,
)
from image_service.database import Database, Repositories, session
from image_service.domain.image import (
    Claim,
    ImageFormat,
    ImageHeader,
    ImageTraits,
    MetadataKind,
    Original,
)
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable
from image_service.models import ImageRow, ThumbnailRow


async def test_a_new_image_is_what_was_recorded(database: Database) -> None:
    original = upload(size_bytes=5 * 2**30)
    await add(database, original, 15)
    image = await run(database, lambda r: r.images.get(original.id))
    assert image is not None
    assert (image.id, image.status, image.header) == (original.id, Status.NEW, original.header)
    assert (image.size_bytes, image.sha256) == (5 * 2**30, "ab" * 32)
    assert (image.finished_at, image.error, image.traits, image.thumbnails) == (None, None, None, ())
    assert close(image.created_at, image.updated_at)


@pytest.mark.parametrize("image_format", ImageFormat)
async def test_every_format_can_be_recorded(database: Database, image_format: ImageFormat) -> None:
    original = upload(header=ImageHeader(format=image_format, width=1, height=20_000))
    await add(database, original, 15)
    image = await run(database, lambda r: r.images.get(original.id))
    assert image is not None
    assert image.header == original.header


async def test_an_unknown_id_leads_to_no_image(database: Database) -> None:
    await recorded(database)
    assert await run(database, lambda r: r.images.get(uuid4())) is None
    assert not await mark_queued(database, uuid4())
    assert await try_claim(database, uuid4()) is None


async def test_recording_twice_is_recording_once(database: Database) -> None:
    original = upload()
    await add(database, original, 15)
    before = await row(database, original.id)
    await add(database, original, 30)
    assert await row(database, original.id) == before


async def test_recording_again_does_not_begin_anew(database: Database) -> None:
    original = upload()
    await add(database, original, 15)
    await complete(database, await claimed(database, original.id))
    before = await row(database, original.id)
    await add(database, original, 15)
    assert await row(database, original.id) == before


async def by_idempotency_key(database: Database, key: str) -> UUID | None:
    """The image that has an idempotency key."""
    image = await run(database, lambda r: r.images.by_idempotency_key(key))
    return None if image is None else image.id


async def test_an_image_is_found_by_its_idempotency_key(database: Database) -> None:
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
    found = await run(database, lambda r: r.images.by_idempotency_key("key"))
    assert found == await run(database, lambda r: r.images.get(one.id))
    assert found is not None
    assert found.thumbnails == (thumbnail(claim),)


async def test_images_without_an_idempotency_key_are_as_many_as_you_like(database: Database) -> None:
    images = [await recorded(database) for _ in range(3)]
    assert await run(database, lambda r: r.images.existing(images)) == set(images)


async def test_a_second_image_under_an_idempotency_key_is_not_recorded(database: Database) -> None:
    first, second = upload(), upload()
    await add(database, first, key="key")
    before = await row(database, first.id)
    await add(database, second, key="key")
    assert await run(database, lambda r: r.images.existing([first.id, second.id])) == {first.id}
    assert await row(database, first.id) == before
    assert await by_idempotency_key(database, "key") == first.id


async def test_recording_twice_under_an_idempotency_key_is_recording_once(database: Database) -> None:
    original = upload()
    await add(database, original, key="key")
    before = await row(database, original.id)
    await add(database, original, key="key")
    assert await row(database, original.id) == before
    assert await by_idempotency_key(database, "key") == original.id


async def test_of_many_images_under_an_idempotency_key_at_once_one_is_recorded_and_all_see_which(
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

    seen = await at_once(database, *map(adding, originals))
    (recorded_one,) = await run(database, lambda r: r.images.existing([original.id for original in originals]))
    assert seen == [recorded_one] * 6


async def test_an_idempotency_key_is_free_again_once_its_image_is_removed(database: Database) -> None:
    first, second = upload(), upload()
    await add(database, first, key="key")
    await remove(database, first.id)
    assert await by_idempotency_key(database, "key") is None
    await add(database, second, key="key")
    assert await by_idempotency_key(database, "key") == second.id


async def test_times_are_aware_utc_and_now(database: Database) -> None:
    claim = await claimed(database, await queued(database), lease=3600)
    open_row = await row(database, claim.image_id)
    await complete(database, claim)
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.finished_at is not None
    times = [image.created_at, image.updated_at, image.finished_at, open_row["queued_at"]]
    times += [open_row["lease_until"] - timedelta(hours=1), open_row["due_at"] - timedelta(hours=1)]
    for time in times:
        assert time.utcoffset() == timedelta(0)
        assert close(time, datetime.now(UTC))


async def test_fractions_of_a_second_count(database: Database) -> None:
    image_id = await recorded(database, due_in=3599.75)
    await shift(database, image_id, created_at=3600)
    times = await row(database, image_id)
    assert timedelta(0) < times["created_at"] - times["due_at"] < timedelta(minutes=1)
    assert times["due_at"].microsecond or times["created_at"].microsecond


async def test_only_a_new_image_is_marked_queued(database: Database) -> None:
    image_id = await recorded(database)
    assert await mark_queued(database, image_id)
    assert await status_of(database, image_id) is Status.PROCESSING
    before = await row(database, image_id)
    assert before["queued_at"] is not None
    assert not await mark_queued(database, image_id)
    assert await row(database, image_id) == before


async def test_a_claimed_image_is_not_marked_queued(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id)
    before = await row(database, image_id)
    assert not await mark_queued(database, image_id)
    assert await row(database, image_id) == before


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_a_worker_that_ended_an_image_before_it_was_marked_queued_has_the_last_word(
    database: Database, end: Status
) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert not await mark_queued(database, claim.image_id)
    assert await row(database, claim.image_id) == before
    assert before["status"] is end


async def test_marking_queued_never_undoes_a_claim_made_at_the_same_time(database: Database) -> None:
    images = [await recorded(database) for _ in range(4)]
    for image_id in images:
        outcome = await at_once(
            database,
            lambda r, i=image_id: r.scheduling.mark_queued(i, due_in=60),  # type: ignore[misc]
            lambda r, i=image_id: r.claims.claim(i, lease=60),  # type: ignore[misc]
        )
        assert isinstance(outcome[1], Claim)
        after = await row(database, image_id)
        assert after["status"] is Status.PROCESSING
        assert after["attempt"] == 1
        assert after["lease_until"] is not None


@pytest.mark.parametrize("make", [recorded, queued])
async def test_an_open_image_is_claimed(database: Database, make: Callable[[Database], Awaitable[UUID]]) -> None:
    image_id = await make(database)
    claim = await try_claim(database, image_id)
    assert claim == Claim(image_id=image_id, attempt=1, attempts_charged=1, decoder_failures=0)
    assert await status_of(database, image_id) is Status.PROCESSING


async def test_a_leased_image_is_not_claimed(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id)
    before = await row(database, image_id)
    assert await try_claim(database, image_id) is None
    assert await row(database, image_id) == before


async def test_an_expired_lease_is_taken_over_under_the_next_attempt(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id, lease=-1)
    assert await claimed(database, image_id, lease=-0.5) == Claim(
        image_id=image_id, attempt=2, attempts_charged=2, decoder_failures=0
    )
    assert (await claimed(database, image_id)).attempt == 3
    assert await try_claim(database, image_id) is None


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_a_finished_image_is_not_claimed(database: Database, end: Status) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert await try_claim(database, claim.image_id) is None
    assert await row(database, claim.image_id) == before


@pytest.mark.parametrize("make", [recorded, queued])
async def test_of_many_claims_at_once_exactly_one_wins(
    database: Database, make: Callable[[Database], Awaitable[UUID]]
) -> None:
    image_id = await make(database)
    claims = await at_once(database, *[lambda r: r.claims.claim(image_id, lease=60)] * 8)
    assert [claim.attempt for claim in claims if claim is not None] == [1]
    assert (await row(database, image_id))["attempt"] == 1


async def test_of_many_claims_to_an_expired_lease_exactly_one_wins(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id, lease=-1)
    claims = await at_once(database, *[lambda r: r.claims.claim(image_id, lease=60)] * 8)
    assert [claim.attempt for claim in claims if claim is not None] == [2]


async def test_claims_of_different_images_do_not_disturb_each_other(database: Database) -> None:
    images = [await recorded(database) for _ in range(8)]
    claims = await at_once(
        database,
        *[lambda r, i=image_id: r.claims.claim(i, lease=60) for image_id in images],
    )
    assert [claim.image_id for claim in claims if claim is not None] == images


async def test_a_renewed_lease_keeps_the_image(database: Database) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert ids(await due(database)) == [claim.image_id]
    assert await run(database, lambda r: r.claims.extend(claim, lease=60))
    assert await try_claim(database, claim.image_id) is None
    assert await due(database) == []
    after = await row(database, claim.image_id)
    assert (after["attempt"], after["attempts_charged"]) == (1, 1)


CHANGES: dict[str, Callable[[Repositories, Claim], Awaitable[bool]]] = {
    "extend": lambda r, claim: r.claims.extend(claim, lease=60),
    "complete": lambda r, claim: r.claims.complete(claim, made(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    "fail": lambda r, claim: r.claims.fail(claim, ERROR),
    "release": lambda r, claim: r.claims.release(claim, rest=-1, due_in=-1, charge=False, decoder_failed=True),
}


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> Callable[[Repositories, Claim], Awaitable[bool]]:
    """Everything that the holder of a claim can do with it."""
    return CHANGES[request.param]


async def test_the_newest_attempt_may_change_the_image(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]]
) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    assert await run(database, lambda r: change(r, claim))
    assert await row(database, claim.image_id) != before


async def test_a_lease_that_ran_out_is_still_good_while_nobody_took_over(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]]
) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert await run(database, lambda r: change(r, claim))


async def test_an_older_attempt_changes_nothing(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]]
) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    newest = await claimed(database, stale.image_id)
    before = await row(database, stale.image_id)
    assert not await run(database, lambda r: change(r, stale))
    assert await row(database, stale.image_id) == before
    assert await complete(database, newest)


async def test_an_older_attempt_changes_nothing_after_the_newest_gave_up(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]]
) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    assert await release(database, await claimed(database, stale.image_id), charge=True)
    before = await row(database, stale.image_id)
    assert not await run(database, lambda r: change(r, stale))
    assert await row(database, stale.image_id) == before


async def test_an_attempt_that_was_never_made_changes_nothing(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]]
) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    for wrong in (replace(claim, attempt=0), replace(claim, attempt=2), replace(claim, image_id=uuid4())):
        assert not await run(database, lambda r, wrong=wrong: change(r, wrong))  # type: ignore[misc]
    assert await row(database, claim.image_id) == before


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_nothing_changes_a_finished_image(
    database: Database, change: Callable[[Repositories, Claim], Awaitable[bool]], end: Status
) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert not await run(database, lambda r: change(r, claim))
    assert await row(database, claim.image_id) == before


async def test_the_fence_holds_while_both_attempts_finish_at_once(database: Database) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    newest = await claimed(database, stale.image_id)
    outcome = await at_once(
        database,
        lambda r: r.claims.complete(stale, made(thumbnail(stale), width=1), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.complete(newest, made(thumbnail(newest), width=2), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.fail(stale, ERROR),
    )
    assert outcome == [False, True, False]
    image = await run(database, lambda r: r.images.get(newest.image_id))
    assert image is not None
    assert (image.status, image.header.width) == (Status.DONE, 2)
    assert image.thumbnails == (thumbnail(newest),)


async def test_one_attempt_ends_one_way(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    outcome = await at_once(
        database,
        lambda r: r.claims.complete(claim, made(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.fail(claim, ERROR),
        lambda r: r.claims.complete(claim, made(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    )
    assert sorted(outcome) == [False, False, True]
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status is Status.DONE) == (not outcome[1])
    assert len(image.thumbnails) == (0 if outcome[1] else 1)


async def test_a_complete_image_has_all_its_thumbnails_smallest_first(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    large, small = thumbnail(claim, "1200x1200", 1200), thumbnail(claim, "100x100", 100)
    same_width = thumbnail(claim, "200x100", 100)
    assert await complete(database, claim, large, same_width, small)
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.thumbnails == (small, same_width, large)
    assert image.status is Status.DONE
    assert (image.header.width, image.header.height) == (480, 640)
    assert close(image.finished_at, image.updated_at)
    assert image.error is None
    assert image.traits == TRAITS
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["due_at"]) == (None, None)


@pytest.mark.parametrize("kinds", [(), tuple(MetadataKind)], ids=["nothing removed", "everything removed"])
async def test_what_an_image_without_colour_was_found_to_be(
    database: Database, kinds: tuple[MetadataKind, ...]
) -> None:
    claim = await claimed(database, await recorded(database))
    traits = ImageTraits(placeholder="AAAA", dominant_colour=None, metadata_removed=kinds)
    result = made(thumbnail(claim), traits=traits)
    assert await run(database, lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.traits == traits


async def test_an_image_that_was_done_before_anybody_looked_has_no_findings(database: Database) -> None:
    claim = await finished(database, Status.DONE)
    unknown = {"placeholder": None, "dominant_colour": None, "metadata_removed": None}
    await execute(database, update(ImageRow).where(ImageRow.id == claim.image_id).values(unknown))
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status, image.traits) == (Status.DONE, None)


async def test_an_image_completes_with_all_thumbnails_or_not_at_all(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    with pytest.raises(IntegrityError):
        await complete(database, claim, thumbnail(claim, "100x100"), thumbnail(claim, "100x100"))
    assert await row(database, claim.image_id) == before
    assert await complete(database, claim, thumbnail(claim))


async def test_a_failed_image_says_why(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    assert await run(database, lambda r: r.claims.fail(claim, ERROR))
    image = await run(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status, image.error, image.thumbnails) == (Status.ERROR, ERROR, ())
    assert close(image.finished_at, image.updated_at)
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["due_at"]) == (None, None)


async def test_a_released_image_rests_and_is_then_claimed_again(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    assert await release(database, claim, rest=60, charge=True)
    assert await try_claim(database, claim.image_id) is None
    assert await status_of(database, claim.image_id) is Status.PROCESSING
    assert await release(database, claim, rest=-1, charge=True)
    assert (await claimed(database, claim.image_id)).attempt == 2


async def test_a_released_image_is_due_when_it_was_asked_to_be(database: Database) -> None:
    soon, later = [await claimed(database, await recorded(database)) for _ in range(2)]
    await run(database, lambda r: r.claims.release(soon, rest=60, due_in=-1, charge=True))
    await run(database, lambda r: r.claims.release(later, rest=-1, due_in=60, charge=True))
    assert ids(await due(database)) == [soon.image_id]


async def test_only_what_is_charged_counts(database: Database) -> None:
    image_id = await recorded(database)
    expected = [(True, False, 1, 0), (False, False, 2, 0), (True, True, 2, 0), (False, True, 3, 1), (True, False, 3, 2)]
    for attempt, (charge, decoder_failed, charged, failures) in enumerate(expected, start=1):
        claim = await claimed(database, image_id)
        assert claim == Claim(image_id=image_id, attempt=attempt, attempts_charged=charged, decoder_failures=failures)
        assert await release(database, claim, charge=charge, decoder_failed=decoder_failed)
    after = await row(database, image_id)
    assert (after["attempt"], after["attempts_charged"], after["decoder_failures"]) == (5, 3, 2)


async def test_releasing_twice_is_the_same_as_once(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    for _ in range(2):  # as when the reply to the first COMMIT was lost
        assert await release(database, claim, charge=False, decoder_failed=True)
    after = await row(database, claim.image_id)
    assert (after["attempts_charged"], after["decoder_failures"]) == (0, 1)


async def test_due_images_come_longest_waiting_first_and_not_too_many(database: Database) -> None:
    second, first, third = [await recorded(database, due_in) for due_in in (-20, -30, -10)]
    await recorded(database, due_in=60)
    assert ids(await due(database)) == [first, second, third]
    assert ids(await due(database, limit=2)) == [first, second]
    seen = (await due(database, limit=1))[0]
    assert (seen.status, seen.publishes) == (Status.NEW, 0)
    assert seen.due_at.utcoffset() == timedelta(0)


async def test_a_leased_image_is_due_when_its_lease_ends(database: Database) -> None:
    held = await claimed(database, await recorded(database, due_in=-1), lease=60)
    left = await claimed(database, await recorded(database, due_in=60), lease=-1)
    assert ids(await due(database)) == [left.image_id]
    assert held.image_id != left.image_id


async def test_a_queued_image_is_due_when_it_was_asked_to_be(database: Database) -> None:
    overdue = await queued(database, due_in=-1)
    await queued(database, due_in=60)
    (seen,) = await due(database)
    assert (seen.id, seen.status) == (overdue, Status.PROCESSING)


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_a_finished_image_is_never_due(database: Database, end: Status) -> None:
    await finished(database, end)
    assert await due(database) == []
    assert await unclaimed(database) == []


async def test_unclaimed_images_are_queued_and_taken_by_nobody_oldest_first(database: Database) -> None:
    await recorded(database)
    await claimed(database, await queued(database))
    await claimed(database, await recorded(database), lease=-1)
    young, old = await queued(database), await queued(database)
    await shift(database, young, queued_at=-100)
    await shift(database, old, queued_at=-200)
    assert ids(await unclaimed(database, queued_before=-1)) == [old, young]
    assert ids(await unclaimed(database, queued_before=50)) == [old, young]
    assert ids(await unclaimed(database, queued_before=50, limit=1)) == [old]
    assert ids(await unclaimed(database, queued_before=150)) == [old]
    assert ids(await unclaimed(database, queued_before=250)) == []


async def test_of_two_reconcilers_one_publishes(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    (one,), (other,) = await due(database), await due(database)
    assert await take(database, one)
    before = await row(database, image_id)
    assert before["publishes"] == 1
    assert not await take(database, other)
    assert await row(database, image_id) == before
    assert await due(database) == []


async def test_of_many_reconcilers_at_once_one_publishes(database: Database) -> None:
    image_id = await queued(database, due_in=-1)
    (seen,) = await due(database)
    outcome = await at_once(database, *[lambda r: r.scheduling.reserve_for_publish(seen, due_in=60)] * 8)
    assert sorted(outcome) == [False] * 7 + [True]
    assert (await row(database, image_id))["publishes"] == 1


async def test_a_taken_image_keeps_its_state_and_its_count(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    for publishes in range(3):
        (seen,) = await due(database)
        assert (seen.id, seen.status, seen.publishes) == (image_id, Status.NEW, publishes)
        assert await take(database, seen, due_in=-1)
    assert await mark_queued(database, image_id)


async def test_a_taken_image_forgets_a_lease_that_ran_out(database: Database) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert await unclaimed(database) == []
    (seen,) = await due(database)
    assert await take(database, seen)
    assert ids(await unclaimed(database)) == [claim.image_id]
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["attempt"]) == (None, 1)
    assert (await claimed(database, claim.image_id)).attempt == 2


async def test_an_image_that_moved_on_since_it_was_seen_is_not_taken(database: Database) -> None:
    images = [await recorded(database, due_in=-1) for _ in range(5)]
    seen = {image.id: image for image in await due(database)}
    await mark_queued(database, images[0])
    await claimed(database, images[1])
    await complete(database, await claimed(database, images[2]))
    await shift(database, images[3], due_at=-2)
    await execute(database, update(ImageRow).where(ImageRow.id == images[4]).values(status=Status.PROCESSING))
    for image_id in images:
        before = await row(database, image_id)
        assert not await take(database, seen[image_id])
        assert await row(database, image_id) == before


async def test_resuming_frees_every_claim_and_makes_every_open_image_due(database: Database) -> None:
    new, waiting = await recorded(database), await queued(database)
    held = await claimed(database, await queued(database))
    resting = await claimed(database, await recorded(database))
    await release(database, resting, rest=60, charge=True)
    ended = [await finished(database, end) for end in (Status.DONE, Status.ERROR)]
    before = [await row(database, claim.image_id) for claim in ended]
    assert await run(database, lambda r: r.scheduling.resume_all()) == 4
    assert set(ids(await due(database))) == {new, waiting, held.image_id, resting.image_id}
    assert [await row(database, claim.image_id) for claim in ended] == before
    assert await status_of(database, new) is Status.NEW
    assert (await claimed(database, held.image_id)).attempt == 2
    assert (await claimed(database, resting.image_id)).attempt == 2


async def test_resuming_an_empty_database_is_fine(database: Database) -> None:
    assert await run(database, lambda r: r.scheduling.resume_all()) == 0


async def test_existing_tells_which_images_are_recorded(database: Database) -> None:
    new = await recorded(database)
    done = (await finished(database, Status.DONE)).image_id
    await recorded(database)
    asked = [new, done, *(uuid4() for _ in range(1000))]
    assert await run(database, lambda r: r.images.existing(asked)) == {new, done}
    assert await run(database, lambda r: r.images.existing([])) == set()


async def test_attempts_in_progress_are_the_newest_of_open_images(database: Database) -> None:
    new = await recorded(database)
    first = await claimed(database, await queued(database), lease=-1)
    second = await claimed(database, first.image_id)
    done, failed = [(await finished(database, end)).image_id for end in (Status.DONE, Status.ERROR)]
    await claimed(database, await recorded(database))
    asked = [new, first.image_id, done, failed, uuid4()]
    assert await run(database, lambda r: r.claims.attempts_in_progress(asked)) == {(new, 0), (second.image_id, 2)}
    assert await run(database, lambda r: r.claims.attempts_in_progress([])) == set()


async def test_thumbnail_keys_are_those_of_the_images_asked_for(database: Database) -> None:
    one, other = [await claimed(database, await recorded(database)) for _ in range(2)]
    thumbnails = [thumbnail(one, "100x100"), thumbnail(one, "300x300")]
    await complete(database, one, *thumbnails)
    await complete(database, other)
    asked = [one.image_id, await recorded(database), uuid4()]
    assert await run(database, lambda r: r.images.thumbnail_keys(asked)) == {item.key for item in thumbnails}
    assert await run(database, lambda r: r.images.thumbnail_keys([])) == set()


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
async def test_the_tables_refuse_what_cannot_be(database: Database, constraint: str, values: dict[str, object]) -> None:
    image_id = await recorded(database)
    before = await row(database, image_id)
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    with pytest.raises(IntegrityError, match=f"ck_images_{constraint}"):
        await execute(database, text(f"UPDATE images SET {assignments}"), values)  # noqa: S608  (our own columns)
    assert await row(database, image_id) == before


async def test_a_thumbnail_belongs_to_an_image_and_goes_with_it(database: Database) -> None:
    claim = await finished(database, Status.DONE)
    values = {**asdict(thumbnail(claim)), "image_id": uuid4()}
    with pytest.raises(IntegrityError):
        await execute(database, insert(ThumbnailRow).values(**values))
    await execute(database, delete(ImageRow).where(ImageRow.id == claim.image_id))
    assert await run(database, lambda r: r.images.thumbnail_keys([claim.image_id])) == set()


async def test_a_transaction_that_raises_leaves_nothing_behind(database: Database) -> None:
    original = upload()

    async def record_and_fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
            assert await repositories.images.get(original.id) is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await record_and_fail()
    assert await run(database, lambda r: r.images.get(original.id)) is None


async def test_nobody_sees_a_transaction_before_it_is_committed(database: Database) -> None:
    original = upload()
    async with database.transaction() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
        assert await run(database, lambda r: r.images.get(original.id)) is None
    assert await run(database, lambda r: r.images.get(original.id)) is not None


async def test_a_statement_has_been_committed_once_it_returns_or_once_its_block_ends(database: Database) -> None:
    original = upload()
    async with database.statement() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=15)
        seen = await run(database, lambda r: r.images.get(original.id)) is not None
    assert seen == database.commits_at_once
    assert await run(database, lambda r: r.images.get(original.id)) is not None


async def test_postgresql_is_told_to_begin_and_to_commit_a_transaction_but_not_a_statement(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    told: list[str] = []
    for begin in (database.transaction, database.statement):
        async with begin() as repositories:
            raw = await repositories.connection.get_raw_connection()
            connection = raw.driver_connection
            assert connection is not None
            connection.add_query_logger(note := lambda record: told.append(record.query.split()[0]))
            await repositories.images.add(upload(), lane=Lane.NORMAL, due_in=15)
        connection.remove_query_logger(note)
        told.append("end")
    assert told == ["BEGIN", "COMMIT;", "end", "end"]
    await database.close()


async def test_transactions_and_statements_take_turns_on_one_connection(database_url: str) -> None:
    database = Database(database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    kept, lost = upload(), upload()

    async def record_and_fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(lost, lane=Lane.NORMAL, due_in=15)
            raise ZeroDivisionError

    for _ in range(2):
        async with database.statement() as repositories:
            await repositories.images.add(kept, lane=Lane.NORMAL, due_in=15)
        with pytest.raises(ZeroDivisionError):
            await record_and_fail()
    async with database.statement() as repositories:
        assert await repositories.images.existing([kept.id, lost.id]) == {kept.id}
    await database.close()


async def test_a_statement_that_fails_leaves_nothing_behind(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    twice = made(thumbnail(claim), thumbnail(claim))

    async def fail() -> None:
        async with database.statement() as repositories:
            await repositories.claims.complete(claim, twice, superseded_for=SUPERSEDED_FOR)

    with pytest.raises(IntegrityError):
        await fail()
    assert await status_of(database, claim.image_id) is Status.PROCESSING
    assert await complete(database, claim)


async def test_a_statement_that_does_not_get_its_turn_in_time_changes_nothing_later(
    database: Database, database_url: str
) -> None:
    """What was given up is cancelled on the server, or a claim that nobody knows of would have to run out."""
    image_id = await recorded(database)
    impatient = Database(database_url, time_limit=0.3)

    async def try_in_vain() -> None:
        async with impatient.statement() as repositories:
            await repositories.claims.claim(image_id, lease=60)

    async with database.transaction() as repositories:
        assert await repositories.scheduling.mark_queued(image_id, due_in=60)
        with pytest.raises(DatabaseUnavailable):
            await try_in_vain()
    assert (await claimed(database, image_id)).attempt == 1
    await impatient.close()


EVENTS: dict[str, Callable[[Repositories, UUID, Claim], Awaitable[object]]] = {
    "queued": lambda r, image_id, _: r.scheduling.mark_queued(image_id, due_in=-1),
    "claimed": lambda r, image_id, _: r.claims.claim(image_id, lease=60),
    "claimed and lost": lambda r, image_id, _: r.claims.claim(image_id, lease=-1),
    "extended": lambda r, _, claim: r.claims.extend(claim, lease=60),
    "released": lambda r, _, claim: r.claims.release(claim, rest=-1, due_in=-1, charge=True),
    "completed": lambda r, _, claim: r.claims.complete(claim, made(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    "failed": lambda r, _, claim: r.claims.fail(claim, ERROR),
    "resumed": lambda r, _, __: r.scheduling.resume_all(),
    "hurried": lambda r, image_id, _: r.scheduling.make_due([image_id]),
    "reprocessed": lambda r, image_id, _: r.images.reprocess([image_id], due_in=-1),
    "original removed": lambda r, image_id, _: r.images.remove_originals([image_id]),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(
        st.tuples(st.sampled_from(sorted({*EVENTS, "published again"})), st.integers(-1, 2)), min_size=1, max_size=20
    )
)
async def test_no_series_of_events_leaves_the_state_machine(database: Database, events: list[tuple[str, int]]) -> None:
    image_id = await recorded(database, due_in=-1)
    before = await row(database, image_id)
    was_done = False
    for name, ago in events:
        attempt = before["attempt"] - ago
        again = before["finished_at"] is not None
        claim = Claim(image_id=image_id, attempt=attempt, attempts_charged=0, decoder_failures=0, reprocessing=again)
        if name == "published again":
            seen = [image for image in await due(database, limit=10_000) if image.id == image_id]
            happened: object = bool(seen) and await take(database, seen[0], due_in=-1)
        else:
            async with database.transaction() as repositories:
                happened = await EVENTS[name](repositories, image_id, claim)
        after = await row(database, image_id)
        assert before["status"].may_become(after["status"]) or before["status"] is after["status"]
        assert after["attempt"] >= before["attempt"]
        was_done |= after["status"] is Status.DONE
        assert bool(after["thumbnails"]) == was_done
        if not happened and name != "resumed":
            assert after == before
        if before["status"].terminal:
            assert name in {"reprocessed", "original removed"} or after == before
            assert after["status"] is (Status.NEW if happened and name == "reprocessed" else before["status"])
        if name in {"reprocessed", "original removed"}:
            assert bool(happened) == (before["status"].terminal and before["original_removed_at"] is None)
        if name in {"extended", "released", "completed", "failed"}:
            assert bool(happened) == (attempt == before["attempt"] and before["status"] is Status.PROCESSING)
        before = after


async def test_a_migrated_database_answers(database: Database) -> None:
    await database.probe()
    await recorded(database)
    await database.probe()


async def test_without_tables_it_says_what_to_do(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    for query in (database.probe, lambda: recorded(database), lambda: due(database)):
        with pytest.raises(DatabaseUnavailable, match="image-service migrate"):
            await query()
    await database.close()


async def test_without_a_column_it_says_what_to_do(database: Database) -> None:
    await execute(database, text("ALTER TABLE images RENAME COLUMN publishes TO published"))
    with pytest.raises(DatabaseUnavailable, match="image-service migrate"):
        await due(database)


async def test_who_does_not_get_a_turn_in_time_is_told_that_the_database_is_away(
    database: Database, database_url: str
) -> None:
    image_id = await recorded(database)
    impatient = Database(database_url, time_limit=0.3)
    async with database.transaction() as repositories:
        assert await repositories.claims.claim(image_id, lease=-1)
        with pytest.raises(DatabaseUnavailable):
            await try_claim(impatient, image_id)
    assert (await claimed(database, image_id)).attempt == 2
    await impatient.close()


async def test_a_query_that_takes_too_long_is_given_up(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(DatabaseUnavailable):
        await execute(database, text("SELECT pg_sleep(60)"))
    assert asyncio.get_running_loop().time() - started < 30
    await database.probe()
    await database.close()


async def test_who_waits_for_a_connection_in_vain_is_told_that_the_database_is_away(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=1, pool_size=1)
    sleepers = [execute(database, text("SELECT pg_sleep(60)")) for _ in range(4)]
    outcome = await asyncio.gather(*sleepers, return_exceptions=True)
    assert [type(result) for result in outcome] == [DatabaseUnavailable] * 4
    await database.probe()
    await database.close()


async def test_a_connection_cut_in_the_middle_is_an_outage_and_the_next_one_works(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    with pytest.raises(DatabaseUnavailable):
        await execute(database, text("SELECT pg_terminate_backend(pg_backend_pid())"))
    await database.probe()
    await database.close()


async def test_connections_cut_while_nobody_used_them_are_noticed_and_replaced(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TRUSTED_FOR", 0.0)
    database, other = [Database(postgres_database_url, time_limit=LONG_TIMEOUT) for _ in range(2)]
    await database.probe()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await execute(other, text(f"SELECT pg_terminate_backend(pid) {others}"))
    await database.probe()
    await database.close()
    await other.close()


@pytest.mark.parametrize("sqlstate", ["08006", "53100", "53300", "57P01", "57P03"])
async def test_what_passes_by_itself_is_an_outage(postgres_database_url: str, sqlstate: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    with pytest.raises(DatabaseUnavailable):
        await execute(database, raising(sqlstate))
    await database.close()


@pytest.mark.parametrize("sqlstate", ["22012", "42601", "XX000"])
async def test_what_never_passes_is_no_outage(postgres_database_url: str, sqlstate: str) -> None:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    with pytest.raises(DBAPIError, match="on purpose"):
        await execute(database, raising(sqlstate))
    await database.close()


def raising(sqlstate: str) -> TextClause:
    return text(f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{sqlstate}'; END $$")


async def test_a_full_disk_under_sqlite_is_an_outage(sqlite_url: str) -> None:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    image_id = await recorded(database)
    full = update(ImageRow).where(ImageRow.id == image_id).values(error_detail="x" * 1_000_000)
    async with database.transaction() as repositories:
        await repositories.connection.execute(text("PRAGMA max_page_count = 1"))
    with pytest.raises(DatabaseUnavailable) as caught:
        await execute(database, full)
    assert "full" in str(caught.value.__cause__)
    assert (await row(database, image_id))["error_detail"] is None
    await database.close()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_database_that_does_not_exist_yet_is_an_outage(postgres_url: str) -> None:
    database = Database(f"{postgres_url.rpartition('/')[0]}/no_such_database")
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await database.close()


async def test_a_server_that_is_away_is_an_outage() -> None:
    database = Database(f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/images")
    for query in (database.probe, lambda: recorded(database)):
        with pytest.raises(DatabaseUnavailable) as caught:
            await query()
        assert caught.value.detail == (DatabaseUnavailable.__doc__ or "").strip()
    await database.close()


async def test_a_server_that_never_answers_is_an_outage(deaf_port: int) -> None:
    database = Database(f"postgresql+asyncpg://app@127.0.0.1:{deaf_port}/images", time_limit=0.3)
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await database.close()


async def test_a_folder_that_is_missing_is_an_outage(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/missing/images.db")
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    (tmp_path / "missing").mkdir()
    with pytest.raises(DatabaseUnavailable, match="image-service migrate"):
        await database.probe()
    await database.close()


async def test_sqlite_keeps_what_it_confirmed(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    async with database.transaction() as repositories:
        connection = repositories.connection
        settings = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    await database.close()
