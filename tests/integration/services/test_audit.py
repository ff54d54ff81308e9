"""The audit: finds exactly what is wrong, and changes nothing without ``repair``."""

import hashlib
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from harness.rows import upload
from harness.service_harness import GRACE, ServiceHarness
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, QueueUnavailable, StorageUnavailable
from image_service.services.audit import Finding, FindingKind, Remedy

Change = Callable[[ServiceHarness, UUID], Awaitable[None]]


async def audit(env: ServiceHarness, *, repair: bool = False, contents: bool = True, batch: int = 100) -> list[Finding]:
    return [finding async for finding in env.audit(batch=batch).run(repair=repair, contents=contents)]


def by_subject(findings: list[Finding]) -> dict[str, tuple[FindingKind, bool]]:
    return {finding.subject: (finding.kind, finding.repaired) for finding in findings}


def small(image_id: UUID) -> str:
    return thumbnail_key(image_id, 1, "100x100")


async def test_an_intact_service_has_no_findings(env: ServiceHarness) -> None:
    await env.new()
    await env.queued()
    await env.claimed()
    await env.done()
    await env.fail(await env.claimed())
    assert await audit(env, repair=True) == []


async def test_an_image_that_lacks_outputs_is_intact_while_they_are_made(env: ServiceHarness) -> None:
    waiting, claimed = await env.done(), await env.done()
    await env.ask(lambda r: r.outputs.mark_outputs_due([waiting, claimed]))
    claim = await env.ask(lambda r: r.outputs.claim_outputs(claimed, lease=60))
    assert claim is not None
    await env.put(thumbnail_key(claimed, claim.attempt, "hero"), age=GRACE + 60)
    assert await audit(env, repair=True) == []


async def test_a_missing_thumbnail_of_an_image_that_lacks_outputs_is_made_again(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.ask(lambda r: r.outputs.mark_outputs_due([image_id]))
    (env.folder / small(image_id)).unlink()
    assert by_subject(await audit(env, repair=True)) == {small(image_id): (FindingKind.MISSING, True)}
    await env.render(image_id)
    assert await audit(env) == []


@pytest.mark.parametrize("repair", [False, True])
async def test_missing_and_mismatched_thumbnails_are_reprocessed(env: ServiceHarness, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    lost, changed, intact = [await env.done() for _ in range(3)]
    (env.folder / small(lost)).unlink()
    (env.folder / small(changed)).write_bytes(b"another")
    assert by_subject(await audit(env, repair=repair)) == {
        small(lost): (FindingKind.MISSING, repair),
        small(changed): (FindingKind.MISMATCHED, repair),
    }
    expected = Status.NEW if repair else Status.DONE
    assert [await env.status(image_id) for image_id in (lost, changed, intact)] == [expected, expected, Status.DONE]


async def test_repaired_findings_are_not_reported_again(env: ServiceHarness) -> None:
    image_id = await env.done()
    for key in await env.files("thumbnails/"):
        (env.folder / key).unlink()
    assert len(await audit(env, repair=True)) == 3
    await env.render(image_id)
    assert await audit(env) == []
    await env.deletion().run_once()
    assert await audit(env) == []


async def test_nothing_is_changed_without_repair(env: ServiceHarness) -> None:
    images = [await env.done() for _ in range(3)]
    stuck = await env.new()
    await env.time_passes(stuck, 3600)
    await env.put(original_key(uuid4()), age=GRACE + 60)
    (env.folder / small(images[0])).unlink()
    (env.folder / small(images[1])).write_bytes(b"another")
    (env.folder / original_key(images[2])).unlink()
    before = [await env.row(image_id) for image_id in (*images, stuck)], await env.files(), await env.removals()
    assert len(await audit(env)) == 5
    after = [await env.row(image_id) for image_id in (*images, stuck)], await env.files(), await env.removals()
    assert after == before
    assert env.queue.published == []


async def test_each_image_is_checked_once_across_batches(env: ServiceHarness) -> None:
    images = [await env.done() for _ in range(5)]
    for image_id in images:
        (env.folder / small(image_id)).unlink()
    found = await audit(env, batch=2)
    assert sorted(finding.subject for finding in found) == sorted(map(small, images))


async def test_an_image_in_progress_is_not_reprocessed_again_for_a_missing_thumbnail(
    env: ServiceHarness,
) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    await env.claim(image_id)
    before = await env.row(image_id)
    (env.folder / small(image_id)).unlink()
    assert by_subject(await audit(env, repair=True)) == {small(image_id): (FindingKind.MISSING, True)}
    assert await env.row(image_id) == before


async def test_a_mismatched_original_is_found(env: ServiceHarness) -> None:
    image_id = await env.new()
    (env.folder / original_key(image_id)).write_bytes(b"ANOTHER")
    assert by_subject(await audit(env, repair=True)) == {original_key(image_id): (FindingKind.MISMATCHED, False)}


async def test_without_its_original_an_image_cannot_be_repaired(env: ServiceHarness) -> None:
    image_id = await env.done()
    for key in (original_key(image_id), small(image_id)):
        (env.folder / key).unlink()
    findings = await audit(env, repair=True)
    assert by_subject(findings) == {
        original_key(image_id): (FindingKind.MISSING, False),
        small(image_id): (FindingKind.MISSING, False),
    }
    assert {finding.remedy for finding in findings} == {Remedy.RESTORE_ORIGINAL, Remedy.RESTORE_THUMBNAIL}
    assert await env.status(image_id) is Status.DONE


async def test_a_removed_original_is_not_missing_but_lost_thumbnails_are(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.ask(lambda r: r.images.remove_originals([image_id]))
    await env.deletion().run_once()
    assert await audit(env) == []
    (env.folder / small(image_id)).unlink()
    assert by_subject(await audit(env, repair=True)) == {small(image_id): (FindingKind.MISSING, False)}


async def test_without_contents_only_missing_and_empty_files_are_found(env: ServiceHarness) -> None:
    image_id = await env.done()
    (env.folder / small(image_id)).write_bytes(b"another")
    assert await audit(env, contents=False) == []
    (env.folder / small(image_id)).write_bytes(b"")
    assert by_subject(await audit(env, contents=False)) == {small(image_id): (FindingKind.MISMATCHED, False)}


@pytest.mark.parametrize("repair", [False, True])
async def test_orphans_are_deleted(env: ServiceHarness, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    old, young = original_key(uuid4()), original_key(uuid4())
    await env.put(old, age=GRACE + 60)
    await env.put(young)
    assert by_subject(await audit(env, repair=repair)) == {old: (FindingKind.ORPHANED, repair)}
    assert await env.files() == ({young} if repair else {old, young})


@pytest.mark.parametrize("repair", [False, True])
async def test_stuck_images_are_queued(env: ServiceHarness, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    stuck, late = await env.new(), await env.new()
    await env.time_passes(stuck, 3600)
    await env.time_passes(late, 30)
    assert by_subject(await audit(env, repair=repair)) == {str(stuck): (FindingKind.STUCK, repair)}
    assert (stuck in {delivery.image_id for delivery in env.queue.published}) is repair


async def test_without_the_queue_stuck_images_stay_stuck(env: ServiceHarness) -> None:
    stuck = await env.new()
    await env.time_passes(stuck, 3600)
    env.script.fail("depth", [QueueUnavailable])
    assert by_subject(await audit(env, repair=True)) == {str(stuck): (FindingKind.STUCK, False)}
    elsewhere = [finding async for finding in env.audit(with_queue=False).run(repair=True)]
    assert by_subject(elsewhere) == {str(stuck): (FindingKind.STUCK, False)}


async def delete(env: ServiceHarness, image_id: UUID) -> None:
    await env.ask(lambda r: r.images.remove([image_id]))


async def remove_original(env: ServiceHarness, image_id: UUID) -> None:
    await env.ask(lambda r: r.images.remove_originals([image_id]))


@pytest.mark.parametrize(
    ("key", "meanwhile"), [(small, delete), (original_key, delete), (original_key, remove_original)]
)
async def test_files_deleted_during_the_check_are_not_missing(
    env: ServiceHarness, key: Callable[[UUID], str], meanwhile: Change
) -> None:
    image_id = await env.done()
    (env.folder / key(image_id)).unlink()

    async def in_between(_: object) -> None:
        await meanwhile(env, image_id)

    env.script.before("get", in_between)
    assert await audit(env, repair=True) == []


async def reprocess(env: ServiceHarness, image_id: UUID) -> None:
    await env.reprocess(image_id)
    await env.render(image_id)
    for key in await env.removals():
        (env.folder / key).unlink()


@pytest.mark.parametrize("meanwhile", [delete, remove_original, reprocess])
async def test_changes_while_files_are_read_cause_no_findings(env: ServiceHarness, meanwhile: Change) -> None:
    image_id = await env.done()

    async def in_between(_: object) -> None:
        if env.script.tried["read"] == 1:
            await meanwhile(env, image_id)
            await env.deletion().run_once()

    env.script.before("read", in_between)
    assert await audit(env, repair=True) == []


async def test_files_of_an_image_accepted_and_done_during_the_check_are_no_orphans(env: ServiceHarness) -> None:
    accepted: list[UUID] = []

    async def in_between(_: object) -> None:
        if not accepted:
            accepted.append(await env.done())
            for key in await env.files():
                env.grow_old(key, GRACE + 60)

    env.script.before("existing", in_between)
    env.script.before("attempts_in_progress", in_between)
    await env.put(original_key(uuid4()), age=GRACE + 60)
    assert [finding.kind for finding in await audit(env)] == [FindingKind.ORPHANED]
    assert len(accepted) == 1


async def test_a_storage_outage_is_raised(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.row(image_id)
    env.script.fail("read", [StorageUnavailable])
    with pytest.raises(StorageUnavailable):
        await audit(env, repair=True)
    assert await env.row(image_id) == before


async def test_a_database_outage_is_raised(env: ServiceHarness) -> None:
    env.script.fail("oldest", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await audit(env)


async def test_files_newer_than_every_row_are_deleted_only_if_that_is_requested(env: ServiceHarness) -> None:
    """As after restoring an older dump, or copying a SQLite file without its WAL."""
    lost_before = original_key(uuid7())
    recorded = upload(id=uuid7(), sha256=hashlib.sha256(b"x").hexdigest())
    await env.ask(lambda r: r.images.add(recorded, lane=Lane.NORMAL, due_in=60))
    await env.put(original_key(recorded.id))
    newer = {original_key(uuid7()), thumbnail_key(uuid7(), 1, "100x100")}
    for key in (lost_before, *newer):
        await env.put(key, age=GRACE + 60)
    findings = by_subject(await audit(env))
    assert findings == {lost_before: (FindingKind.ORPHANED, False)} | dict.fromkeys(newer, (FindingKind.NEWER, False))
    await audit(env, repair=True)
    findings_left = [finding async for finding in env.audit().run(repair=True, delete_newer=True)]
    assert by_subject(findings_left) == dict.fromkeys(newer, (FindingKind.NEWER, True))
    assert await audit(env) == []


async def test_without_any_row_every_file_is_newer(env: ServiceHarness) -> None:
    key = original_key(uuid7())
    await env.put(key, age=GRACE + 60)
    assert by_subject(await audit(env, repair=True)) == {key: (FindingKind.NEWER, False)}
