"""Random sequences of changes stay within the state machine."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.rows import (
    ERROR,
    RECIPE,
    SUPERSEDED_FOR,
    due,
    recorded,
    rendered,
    reserve,
    row,
    thumbnail,
)
from image_service.database import Database, Repositories
from image_service.domain.image import Claim, LateResult
from image_service.domain.status import Status

CHANGES: dict[str, Callable[[Repositories, UUID, Claim], Awaitable[object]]] = {
    "queued": lambda r, image_id, _: r.scheduling.mark_queued(image_id, due_in=-1),
    "claimed": lambda r, image_id, _: r.claims.claim(image_id, lease=60),
    "claimed with an expired lease": lambda r, image_id, _: r.claims.claim(image_id, lease=-1),
    "extended": lambda r, _, claim: r.claims.extend(claim, lease=60),
    "released": lambda r, _, claim: r.claims.release(claim, rest=-1, due_in=-1, charge=True),
    "completed": lambda r, _, claim: r.claims.complete(
        claim, rendered(thumbnail(claim)), superseded_for=SUPERSEDED_FOR
    ),
    "failed": lambda r, _, claim: r.claims.fail(claim, ERROR),
    "resumed": lambda r, _, __: r.scheduling.resume_all(),
    "made due": lambda r, image_id, _: r.scheduling.make_due([image_id]),
    "reprocessed": lambda r, image_id, _: r.images.reprocess([image_id], due_in=-1),
    "original removed": lambda r, image_id, _: r.images.remove_originals([image_id]),
    "outputs marked": lambda r, image_id, _: r.outputs.mark_outputs_due([image_id]),
    "outputs claimed": lambda r, image_id, _: r.outputs.claim_outputs(image_id, lease=60),
    "outputs claimed with an expired lease": lambda r, image_id, _: r.outputs.claim_outputs(image_id, lease=-1),
    "outputs extended": lambda r, _, claim: r.outputs.extend_outputs(claim, lease=60),
    "outputs released": lambda r, _, claim: r.outputs.release_outputs(claim, rest=-1, due_in=-1, charge=True),
    "outputs completed": lambda r, _, claim: r.outputs.complete_outputs(
        claim,
        LateResult(recipe=RECIPE, left_out={}, made=(thumbnail(claim),), removed=("100x100",)),
        superseded_for=SUPERSEDED_FOR,
    ),
    "outputs resumed": lambda r, _, __: r.outputs.resume_outputs(),
}
OF_OUTPUTS = {name for name in CHANGES if name.startswith("outputs")}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(sorted({*CHANGES, "reserved for publish"})), st.integers(-1, 2)),
        min_size=1,
        max_size=20,
    )
)
async def test_no_sequence_of_changes_leaves_the_state_machine(
    database: Database, changes: list[tuple[str, int]]
) -> None:
    image_id = await recorded(database, due_in=-1)
    before = await row(database, image_id)
    was_done = False
    for name, ago in changes:
        attempt = before["attempt"] - ago
        finished_before = before["finished_at"] is not None
        claim = Claim(
            image_id=image_id,
            attempt=attempt,
            attempts_charged=0,
            decoder_failures=0,
            sha256="ab" * 32,
            reprocessing=finished_before,
        )
        if name == "reserved for publish":
            seen = [each for each in await due(database, limit=10_000) if each.id == image_id]
            changed: object = bool(seen) and await reserve(database, seen[0], due_in=-1)
        else:
            async with database.transaction() as repositories:
                changed = await CHANGES[name](repositories, image_id, claim)
        after = await row(database, image_id)
        assert before["status"].may_become(after["status"]) or before["status"] is after["status"]
        assert after["attempt"] >= before["attempt"]
        was_done |= after["status"] is Status.DONE
        assert bool(after["thumbnails"]) == was_done
        async with database.transaction() as repositories:
            recorded_keys = await repositories.images.thumbnail_keys([image_id])
            assert not await repositories.removals.pending(recorded_keys)
        if not changed and "resumed" not in name:
            assert after == before
        if before["status"].terminal:
            assert name in {"reprocessed", "original removed", *OF_OUTPUTS} or after == before
            assert after["finished_at"] == before["finished_at"]
        elif name in OF_OUTPUTS:
            assert after == before
        if after["status"] is not Status.DONE or after["original_removed_at"] is not None:
            assert (after["outputs_due_at"], after["outputs_lease_until"]) == (None, None)
        if before["status"].terminal:
            assert after["status"] is (Status.NEW if changed and name == "reprocessed" else before["status"])
        if name in {"reprocessed", "original removed"}:
            assert bool(changed) == (before["status"].terminal and before["original_removed_at"] is None)
        if name in {"extended", "released", "completed", "failed"}:
            assert bool(changed) == (attempt == before["attempt"] and before["status"] is Status.PROCESSING)
        before = after
