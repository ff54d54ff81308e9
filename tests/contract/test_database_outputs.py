"""Claims on outputs that DONE images lack: leases, fencing and what they exclude, on SQLite and PostgreSQL."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from harness.rows import (
    FINISHED,
    RECIPE,
    SUPERSEDED_FOR,
    UNFINISHED,
    RecordImage,
    claimed,
    close_to,
    concurrently,
    done,
    failed,
    in_transaction,
    queued,
    removals,
    remove,
    remove_originals,
    rendered,
    reprocess,
    row,
    shift,
    thumbnail,
)
from image_service.database import Database, Repositories
from image_service.domain.image import Claim, LateResult
from image_service.domain.status import Status

Change = Callable[[Repositories, Claim], Awaitable[bool]]


async def lacking(database: Database) -> UUID:
    """Record a DONE image that is to be compared with its recipe."""
    image_id = await done(database)
    assert await mark(database, image_id) == {image_id}
    return image_id


async def mark(database: Database, *image_ids: UUID) -> set[UUID]:
    return await in_transaction(database, lambda r: r.outputs.mark_outputs_due(image_ids))


async def claim_outputs(database: Database, image_id: UUID, lease: float = 60) -> Claim | None:
    return await in_transaction(database, lambda r: r.outputs.claim_outputs(image_id, lease=lease))


async def held(database: Database, lease: float = 60) -> Claim:
    claim = await claim_outputs(database, await lacking(database), lease)
    assert claim is not None
    return claim


def made(claim: Claim, **changes: Any) -> LateResult:  # noqa: ANN401  (fields of LateResult)
    result = LateResult(
        recipe="r" + RECIPE[1:], left_out={}, made=(thumbnail(claim, "hero"),), removed=("100x100",), known={}
    )
    return replace(result, **changes)


CHANGES: dict[str, Change] = {
    "extend": lambda r, claim: r.outputs.extend_outputs(claim, lease=60),
    "release": lambda r, claim: r.outputs.release_outputs(claim, rest=-1, due_in=-1, charge=False),
    "complete": lambda r, claim: r.outputs.complete_outputs(claim, made(claim), superseded_for=SUPERSEDED_FOR),
}
"""Everything that the holder of a claim on outputs can do with it."""


async def test_claim_on_outputs_is_the_next_attempt_and_leaves_the_image_done(database: Database) -> None:
    image_id = await lacking(database)
    before = await row(database, image_id)
    claim = await claim_outputs(database, image_id)
    assert claim == Claim(
        image_id=image_id, attempt=2, attempts_charged=1, decoder_failures=0, sha256="ab" * 32, reprocessing=True
    )
    after = await row(database, image_id)
    changes = {"attempt", "recipe_attempt", "outputs_attempts", "outputs_lease_until", "outputs_due_at"}
    assert {name for name in after if after[name] != before[name]} == changes
    assert after["outputs_lease_until"] == after["outputs_due_at"]
    assert await claim_outputs(database, image_id) is None


@pytest.mark.parametrize("record", [*UNFINISHED, *FINISHED])
async def test_image_that_lacks_nothing_has_no_outputs_to_claim(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    before = await row(database, image_id)
    assert await claim_outputs(database, image_id) is None
    assert await claim_outputs(database, uuid4()) is None
    assert await row(database, image_id) == before


@pytest.mark.parametrize("record", [*UNFINISHED, failed])
async def test_only_images_that_are_done_are_marked(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    without_original = await done(database)
    await remove_originals(database, without_original)
    marked = await lacking(database)
    before = [await row(database, each) for each in (image_id, without_original, marked)]
    assert await mark(database, image_id, without_original, marked, uuid4()) == set()
    assert [await row(database, each) for each in (image_id, without_original, marked)] == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_holder_of_an_older_attempt_changes_nothing(database: Database, change: Change) -> None:
    claim = await held(database, lease=-1)
    assert await claim_outputs(database, claim.image_id) is not None
    before = await row(database, claim.image_id)
    assert not await in_transaction(database, lambda r: change(r, claim))
    assert await row(database, claim.image_id) == before
    assert await removals(database) == {}


async def end_by_reprocessing(database: Database, image_id: UUID) -> None:
    assert await reprocess(database, image_id)


async def end_by_a_new_rendering(database: Database, image_id: UUID) -> None:
    assert await reprocess(database, image_id)
    claim = await claimed(database, image_id)
    result = rendered(thumbnail(claim))
    assert await in_transaction(database, lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))


async def end_by_removal_of_the_original(database: Database, image_id: UUID) -> None:
    assert await remove_originals(database, image_id)


@pytest.mark.parametrize("end", [end_by_reprocessing, end_by_a_new_rendering, end_by_removal_of_the_original, remove])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_claim_on_outputs_ends_with_a_change_of_the_image(
    database: Database, change: Change, end: Callable[[Database, UUID], Awaitable[object]]
) -> None:
    claim = await held(database)
    await end(database, claim.image_id)
    known = await removals(database)
    assert not await in_transaction(database, lambda r: change(r, claim))
    assert (await removals(database)).keys() == known.keys()


async def test_completion_replaces_only_what_it_names(database: Database) -> None:
    claim = await claimed(database, await queued(database))
    small, large = thumbnail(claim), thumbnail(claim, "300x300", 300)
    assert await in_transaction(database, lambda r: r.claims.complete(claim, rendered(small, large)))
    await mark(database, claim.image_id)
    late = await claim_outputs(database, claim.image_id)
    assert late is not None
    result = made(late, left_out={"hero.avif": "0" * 16}, known={"300x300": "1" * 16})
    assert await in_transaction(
        database, lambda r: r.outputs.complete_outputs(late, result, superseded_for=SUPERSEDED_FOR)
    )
    assert set(await removals(database)) == {small.key}
    image = await in_transaction(database, lambda r: r.images.get(claim.image_id))
    assert image is not None
    assert set(image.thumbnails) == {replace(large, fingerprint="1" * 16), thumbnail(late, "hero")}
    assert (image.recipe, image.left_out, image.pending) == (result.recipe, {"hero.avif": "0" * 16}, ())
    assert image.status is Status.DONE


async def test_release_counts_the_attempt_or_does_not(database: Database) -> None:
    claim = await held(database)
    for charge, counted in ((False, 0), (True, 1), (True, 1)):
        assert await in_transaction(
            database,
            lambda r, charge=charge: r.outputs.release_outputs(claim, rest=10, due_in=20, charge=charge),  # type: ignore[misc]  # a default binds the loop's value
        )
        after = await row(database, claim.image_id)
        assert after["outputs_attempts"] == counted
        assert (after["outputs_due_at"] - after["outputs_lease_until"]).total_seconds() == pytest.approx(10, abs=0.01)
    assert await claim_outputs(database, claim.image_id) is None
    await shift(database, claim.image_id, outputs_lease_until=-1)
    again = await claim_outputs(database, claim.image_id)
    assert again is not None
    assert (again.attempts_charged, again.decoder_failures) == (2, 1)


async def test_exactly_one_of_concurrent_claims_on_outputs_succeeds(database: Database) -> None:
    image_id = await lacking(database)
    claims = await concurrently(database, *[lambda r: r.outputs.claim_outputs(image_id, lease=60)] * 4)
    assert sum(claim is not None for claim in claims) == 1


@pytest.mark.parametrize("other", ["reprocess", "remove", "remove_originals"])
async def test_completion_of_outputs_and_another_change_are_serialized(database: Database, other: str) -> None:
    for _ in range(4):
        claim = await held(database)

        async def change(r: Repositories, image_id: UUID = claim.image_id) -> bool:
            options = {"due_in": 60} if other == "reprocess" else {}
            return bool(await getattr(r.images, other)([image_id], **options))

        completed, changed = await concurrently(
            database,
            lambda r, c=claim: r.outputs.complete_outputs(c, made(c), superseded_for=SUPERSEDED_FOR),  # type: ignore[misc]  # as above
            change,
        )
        assert changed
        async with database.transaction() as repositories:
            recorded = await repositories.images.thumbnail_keys([claim.image_id])
        if other != "remove":
            late = thumbnail(claim, "hero").key
            assert (late in recorded) == completed
        else:
            assert recorded == set()
        assert not recorded & (await removals(database)).keys()


async def test_images_that_lack_outputs_are_due_in_their_order(database: Database) -> None:
    first, second, later = [await lacking(database) for _ in range(3)]
    for image_id, due in ((first, -20), (second, -10), (later, 60)):
        await shift(database, image_id, outputs_due_at=due)
    due_now = await in_transaction(database, lambda r: r.outputs.outputs_due(limit=10))
    assert [each.id for each in due_now] == [first, second]
    assert len(await in_transaction(database, lambda r: r.outputs.outputs_due(limit=1))) == 1
    assert await in_transaction(database, lambda r: r.outputs.outputs_waiting(limit=2)) == 2
    assert await in_transaction(database, lambda r: r.outputs.outputs_waiting(limit=9)) == 3
    assert await in_transaction(database, lambda r: r.outputs.reserve_outputs(due_now[0], due_in=60))
    assert not await in_transaction(database, lambda r: r.outputs.reserve_outputs(due_now[0], due_in=60))
    after = await row(database, first)
    assert after["publishes"] == 1
    assert close_to(after["outputs_due_at"], (await row(database, later))["outputs_due_at"])


async def test_queued_outputs_are_unclaimed_until_a_worker_claims_them(database: Database) -> None:
    queued, claimed, due = [await lacking(database) for _ in range(3)]
    async with database.transaction() as repositories:
        for each in await repositories.outputs.outputs_due(limit=10):
            assert await repositories.outputs.reserve_outputs(each, due_in=60)
    assert await claim_outputs(database, claimed) is not None
    await shift(database, due, outputs_due_at=-1)

    async def unclaimed(queued_before: float) -> list[UUID]:
        found = await in_transaction(
            database, lambda r: r.outputs.outputs_unclaimed(queued_before=queued_before, limit=10)
        )
        return [each.id for each in found]

    assert await unclaimed(-1) == [queued]
    assert await unclaimed(10) == []


async def test_resuming_ends_claims_on_outputs(database: Database) -> None:
    claim = await held(database)
    assert await in_transaction(database, lambda r: r.outputs.resume_outputs()) == 1
    assert await claim_outputs(database, claim.image_id) is not None
