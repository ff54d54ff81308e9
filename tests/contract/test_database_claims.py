"""Claims, leases, fencing and outcomes of attempts, on SQLite and PostgreSQL."""

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from harness.fakes import TRAITS
from harness.rows import (
    CLAIM_CHANGES,
    ERROR,
    SUPERSEDED_FOR,
    ClaimChange,
    RecordImage,
    claimed,
    close_to,
    complete,
    concurrently,
    due,
    execute,
    finished,
    ids,
    in_transaction,
    queued,
    recorded,
    release,
    rendered,
    row,
    status_of,
    thumbnail,
    try_claim,
)
from image_service.database import Database
from image_service.domain.image import Claim, ImageTraits, MetadataKind
from image_service.domain.status import Status
from image_service.models import ImageRow


@pytest.mark.parametrize("record", [recorded, queued])
async def test_unfinished_image_can_be_claimed(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    claim = await try_claim(database, image_id)
    assert claim == Claim(image_id=image_id, attempt=1, attempts_charged=1, decoder_failures=0, sha256="ab" * 32)
    assert await status_of(database, image_id) is Status.PROCESSING


async def test_leased_image_cannot_be_claimed(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id)
    before = await row(database, image_id)
    assert await try_claim(database, image_id) is None
    assert await row(database, image_id) == before


async def test_claim_after_an_expired_lease_gets_the_next_attempt(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id, lease=-1)
    assert await claimed(database, image_id, lease=-0.5) == Claim(
        image_id=image_id, attempt=2, attempts_charged=2, decoder_failures=0, sha256="ab" * 32
    )
    assert (await claimed(database, image_id)).attempt == 3
    assert await try_claim(database, image_id) is None


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_finished_image_cannot_be_claimed(database: Database, end: Status) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert await try_claim(database, claim.image_id) is None
    assert await row(database, claim.image_id) == before


@pytest.mark.parametrize("record", [recorded, queued])
async def test_exactly_one_of_concurrent_claims_succeeds(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    claims = await concurrently(database, *[lambda r: r.claims.claim(image_id, lease=60)] * 8)
    assert [claim.attempt for claim in claims if claim is not None] == [1]
    assert (await row(database, image_id))["attempt"] == 1


async def test_exactly_one_of_concurrent_claims_takes_over_an_expired_lease(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id, lease=-1)
    claims = await concurrently(database, *[lambda r: r.claims.claim(image_id, lease=60)] * 8)
    assert [claim.attempt for claim in claims if claim is not None] == [2]


async def test_concurrent_claims_of_different_images_all_succeed(database: Database) -> None:
    images = [await recorded(database) for _ in range(8)]
    claims = await concurrently(
        database,
        *[lambda r, i=image_id: r.claims.claim(i, lease=60) for image_id in images],
    )
    assert [claim.image_id for claim in claims if claim is not None] == images


async def test_extended_lease_keeps_the_image(database: Database) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert ids(await due(database)) == [claim.image_id]
    assert await in_transaction(database, lambda r: r.claims.extend(claim, lease=60))
    assert await try_claim(database, claim.image_id) is None
    assert await due(database) == []
    after = await row(database, claim.image_id)
    assert (after["attempt"], after["attempts_charged"]) == (1, 1)


@pytest.fixture(params=CLAIM_CHANGES)
def change(request: pytest.FixtureRequest) -> ClaimChange:
    """Everything that the holder of a claim can do with it."""
    return CLAIM_CHANGES[request.param]


async def test_newest_attempt_can_change_the_image(database: Database, change: ClaimChange) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    assert await in_transaction(database, lambda r: change(r, claim))
    assert await row(database, claim.image_id) != before


async def test_expired_lease_is_valid_until_another_claim(database: Database, change: ClaimChange) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert await in_transaction(database, lambda r: change(r, claim))


async def test_older_attempt_changes_nothing(database: Database, change: ClaimChange) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    newest = await claimed(database, stale.image_id)
    before = await row(database, stale.image_id)
    assert not await in_transaction(database, lambda r: change(r, stale))
    assert await row(database, stale.image_id) == before
    assert await complete(database, newest)


async def test_older_attempt_changes_nothing_after_the_newest_was_released(
    database: Database, change: ClaimChange
) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    assert await release(database, await claimed(database, stale.image_id), charge=True)
    before = await row(database, stale.image_id)
    assert not await in_transaction(database, lambda r: change(r, stale))
    assert await row(database, stale.image_id) == before


async def test_unknown_attempt_changes_nothing(database: Database, change: ClaimChange) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    for wrong in (replace(claim, attempt=0), replace(claim, attempt=2), replace(claim, image_id=uuid4())):
        assert not await in_transaction(database, lambda r, wrong=wrong: change(r, wrong))  # type: ignore[misc]
    assert await row(database, claim.image_id) == before


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_claim_of_a_finished_image_changes_nothing(database: Database, change: ClaimChange, end: Status) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert not await in_transaction(database, lambda r: change(r, claim))
    assert await row(database, claim.image_id) == before


async def test_fencing_holds_when_two_attempts_finish_concurrently(database: Database) -> None:
    stale = await claimed(database, await recorded(database), lease=-1)
    newest = await claimed(database, stale.image_id)
    outcome = await concurrently(
        database,
        lambda r: r.claims.complete(stale, rendered(thumbnail(stale), width=1), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.complete(newest, rendered(thumbnail(newest), width=2), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.fail(stale, ERROR),
    )
    assert outcome == [False, True, False]
    image = await in_transaction(database, lambda r: r.images.get(newest.image_id))
    assert image is not None
    assert (image.status, image.header.width) == (Status.DONE, 2)
    assert image.thumbnails == (thumbnail(newest),)


async def test_one_attempt_has_one_outcome(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    outcome = await concurrently(
        database,
        lambda r: r.claims.complete(claim, rendered(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
        lambda r: r.claims.fail(claim, ERROR),
        lambda r: r.claims.complete(claim, rendered(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    )
    assert sorted(outcome) == [False, False, True]
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status is Status.DONE) == (not outcome[1])
    assert len(image.thumbnails) == (0 if outcome[1] else 1)


async def test_completed_image_has_all_thumbnails_smallest_first(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    large, small = thumbnail(claim, "1200x1200", 1200), thumbnail(claim, "100x100", 100)
    same_width = thumbnail(claim, "200x100", 100)
    assert await complete(database, claim, large, same_width, small)
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.thumbnails == (small, same_width, large)
    assert image.status is Status.DONE
    assert (image.header.width, image.header.height) == (480, 640)
    assert close_to(image.finished_at, image.updated_at)
    assert image.error is None
    assert image.traits == TRAITS
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["due_at"]) == (None, None)


@pytest.mark.parametrize("kinds", [(), tuple(MetadataKind)], ids=["nothing removed", "everything removed"])
async def test_traits_without_a_dominant_colour_are_recorded(
    database: Database, kinds: tuple[MetadataKind, ...]
) -> None:
    claim = await claimed(database, await recorded(database))
    traits = ImageTraits(placeholder="AAAA", dominant_colour=None, metadata_removed=kinds)
    result = rendered(thumbnail(claim), traits=traits)
    assert await in_transaction(database, lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert image.traits == traits


async def test_image_done_by_an_earlier_version_has_no_traits(database: Database) -> None:
    claim = await finished(database, Status.DONE)
    unknown = {"placeholder": None, "dominant_colour": None, "metadata_removed": None}
    await execute(database, update(ImageRow).where(ImageRow.id == claim.image_id).values(unknown))
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status, image.traits) == (Status.DONE, None)


async def test_complete_records_all_thumbnails_or_none(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    before = await row(database, claim.image_id)
    with pytest.raises(IntegrityError):
        await complete(database, claim, thumbnail(claim, "100x100"), thumbnail(claim, "100x100"))
    assert await row(database, claim.image_id) == before
    assert await complete(database, claim, thumbnail(claim))


async def test_failed_image_has_its_error(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    assert await in_transaction(database, lambda r: r.claims.fail(claim, ERROR))
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert (image.status, image.error, image.thumbnails) == (Status.ERROR, ERROR, ())
    assert close_to(image.finished_at, image.updated_at)
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["due_at"]) == (None, None)


async def test_released_image_can_be_claimed_after_its_rest(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    assert await release(database, claim, rest=60, charge=True)
    assert await try_claim(database, claim.image_id) is None
    assert await status_of(database, claim.image_id) is Status.PROCESSING
    assert await release(database, claim, rest=-1, charge=True)
    assert (await claimed(database, claim.image_id)).attempt == 2


async def test_released_image_is_due_at_the_given_time(database: Database) -> None:
    soon, later = [await claimed(database, await recorded(database)) for _ in range(2)]
    await in_transaction(database, lambda r: r.claims.release(soon, rest=60, due_in=-1, charge=True))
    await in_transaction(database, lambda r: r.claims.release(later, rest=-1, due_in=60, charge=True))
    assert ids(await due(database)) == [soon.image_id]


async def test_only_charged_attempts_count(database: Database) -> None:
    image_id = await recorded(database)
    expected = [(True, False, 1, 0), (False, False, 2, 0), (True, True, 2, 0), (False, True, 3, 1), (True, False, 3, 2)]
    for attempt, (charge, decoder_failed, charged, failures) in enumerate(expected, start=1):
        claim = await claimed(database, image_id)
        assert claim == Claim(
            image_id=image_id,
            attempt=attempt,
            attempts_charged=charged,
            decoder_failures=failures,
            sha256="ab" * 32,
        )
        assert await release(database, claim, charge=charge, decoder_failed=decoder_failed)
    after = await row(database, image_id)
    assert (after["attempt"], after["attempts_charged"], after["decoder_failures"]) == (5, 3, 2)


async def test_releasing_twice_counts_once(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    for _ in range(2):  # the reply to the first COMMIT may have been lost
        assert await release(database, claim, charge=False, decoder_failed=True)
    after = await row(database, claim.image_id)
    assert (after["attempts_charged"], after["decoder_failures"]) == (0, 1)


async def test_attempts_in_progress_are_the_newest_of_unfinished_images(database: Database) -> None:
    new = await recorded(database)
    first = await claimed(database, await queued(database), lease=-1)
    second = await claimed(database, first.image_id)
    done, failed = [(await finished(database, end)).image_id for end in (Status.DONE, Status.ERROR)]
    await claimed(database, await recorded(database))
    asked = [new, first.image_id, done, failed, uuid4()]
    assert await in_transaction(database, lambda r: r.claims.attempts_in_progress(asked)) == {
        (new, 0),
        (second.image_id, 2),
    }
    assert await in_transaction(database, lambda r: r.claims.attempts_in_progress([])) == set()
