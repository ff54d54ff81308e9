"""The audit: it finds what is wrong and nothing else, and changes nothing unless it is asked to."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, QueueUnavailable, StorageUnavailable
from image_service.services import audit as service
from image_service.services.audit import Finding, Trouble
from tests.support.stage import GRACE, Stage

Harm = Callable[[Stage, UUID], Awaitable[None]]


async def audit(stage: Stage, *, repair: bool = False, contents: bool = True) -> list[Finding]:
    return [finding async for finding in stage.audit().run(repair=repair, contents=contents)]


def told(findings: list[Finding]) -> dict[str, tuple[Trouble, bool]]:
    return {finding.subject: (finding.trouble, finding.mended) for finding in findings}


def small(image_id: UUID) -> str:
    return thumbnail_key(image_id, 1, "100x100")


async def test_of_what_is_as_it_should_be_there_is_nothing_to_tell(stage: Stage) -> None:
    await stage.new()
    await stage.queued()
    await stage.claimed()
    await stage.done()
    await stage.fail(await stage.claimed())
    assert await audit(stage, repair=True) == []


@pytest.mark.parametrize("repair", [False, True])
async def test_thumbnails_that_are_missing_or_changed_are_made_again(stage: Stage, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    lost, changed, sound = [await stage.done() for _ in range(3)]
    (stage.folder / small(lost)).unlink()
    (stage.folder / small(changed)).write_bytes(b"another")
    assert told(await audit(stage, repair=repair)) == {
        small(lost): (Trouble.MISSING, repair),
        small(changed): (Trouble.MISMATCHED, repair),
    }
    expected = Status.NEW if repair else Status.DONE
    assert [await stage.status(image_id) for image_id in (lost, changed, sound)] == [expected, expected, Status.DONE]


async def test_what_was_mended_is_found_no_more(stage: Stage) -> None:
    image_id = await stage.done()
    for key in await stage.files("thumbnails/"):
        (stage.folder / key).unlink()
    assert len(await audit(stage, repair=True)) == 3
    await stage.render(image_id)
    assert await audit(stage) == []
    await stage.deletion().run_once()
    assert await audit(stage) == []


async def test_nothing_is_changed_unless_that_is_asked_for(stage: Stage) -> None:
    images = [await stage.done() for _ in range(3)]
    stuck = await stage.new()
    await stage.time_passes(stuck, 3600)
    await stage.put(original_key(uuid4()), age=GRACE + 60)
    (stage.folder / small(images[0])).unlink()
    (stage.folder / small(images[1])).write_bytes(b"another")
    (stage.folder / original_key(images[2])).unlink()
    before = [await stage.row(image_id) for image_id in (*images, stuck)], await stage.files(), await stage.removals()
    assert len(await audit(stage)) == 5
    after = [await stage.row(image_id) for image_id in (*images, stuck)], await stage.files(), await stage.removals()
    assert after == before
    assert stage.queue.published == []


async def test_however_many_images_there_are_each_is_looked_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_BATCH", 2)
    images = [await stage.done() for _ in range(5)]
    for image_id in images:
        (stage.folder / small(image_id)).unlink()
    found = await audit(stage)
    assert sorted(finding.subject for finding in found) == sorted(map(small, images))


async def test_a_thumbnail_that_is_lost_while_the_image_is_rendered_again_needs_no_further_wish(stage: Stage) -> None:
    image_id = await stage.done()
    await stage.reprocess(image_id)
    await stage.claim(image_id)
    before = await stage.row(image_id)
    (stage.folder / small(image_id)).unlink()
    assert told(await audit(stage, repair=True)) == {small(image_id): (Trouble.MISSING, True)}
    assert await stage.row(image_id) == before


async def test_an_original_that_has_other_content_is_found(stage: Stage) -> None:
    image_id = await stage.new()
    (stage.folder / original_key(image_id)).write_bytes(b"ANOTHER")
    assert told(await audit(stage, repair=True)) == {original_key(image_id): (Trouble.MISMATCHED, False)}


async def test_an_original_that_is_lost_cannot_be_mended_nor_what_was_made_of_it(stage: Stage) -> None:
    image_id = await stage.done()
    for key in (original_key(image_id), small(image_id)):
        (stage.folder / key).unlink()
    findings = await audit(stage, repair=True)
    assert told(findings) == {
        original_key(image_id): (Trouble.MISSING, False),
        small(image_id): (Trouble.MISSING, False),
    }
    assert all("backup" in finding.remedy for finding in findings)
    assert await stage.status(image_id) is Status.DONE


async def test_an_original_whose_time_is_over_is_not_missed_but_its_thumbnails_are(stage: Stage) -> None:
    image_id = await stage.done()
    await stage.ask(lambda r: r.images.remove_originals([image_id]))
    await stage.deletion().run_once()
    assert await audit(stage) == []
    (stage.folder / small(image_id)).unlink()
    assert told(await audit(stage, repair=True)) == {small(image_id): (Trouble.MISSING, False)}


async def test_without_the_contents_only_what_is_missing_or_empty_is_found(stage: Stage) -> None:
    image_id = await stage.done()
    (stage.folder / small(image_id)).write_bytes(b"another")
    assert await audit(stage, contents=False) == []
    (stage.folder / small(image_id)).write_bytes(b"")
    assert told(await audit(stage, contents=False)) == {small(image_id): (Trouble.MISMATCHED, False)}


@pytest.mark.parametrize("repair", [False, True])
async def test_orphans_are_removed(stage: Stage, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    old, young = original_key(uuid4()), original_key(uuid4())
    await stage.put(old, age=GRACE + 60)
    await stage.put(young)
    assert told(await audit(stage, repair=repair)) == {old: (Trouble.ORPHANED, repair)}
    assert await stage.files() == ({young} if repair else {old, young})


@pytest.mark.parametrize("repair", [False, True])
async def test_images_that_nobody_looks_after_are_queued(stage: Stage, repair: bool) -> None:  # noqa: FBT001  (a parameter)
    stuck, late = await stage.new(), await stage.new()
    await stage.time_passes(stuck, 3600)
    await stage.time_passes(late, 30)
    assert told(await audit(stage, repair=repair)) == {str(stuck): (Trouble.STUCK, repair)}
    assert (stuck in {delivery.image_id for delivery in stage.queue.published}) is repair


async def test_where_the_queue_is_away_or_out_of_reach_they_stay_stuck(stage: Stage) -> None:
    stuck = await stage.new()
    await stage.time_passes(stuck, 3600)
    stage.script.fail("depth", [QueueUnavailable])
    assert told(await audit(stage, repair=True)) == {str(stuck): (Trouble.STUCK, False)}
    elsewhere = [finding async for finding in stage.audit(with_queue=False).run(repair=True)]
    assert told(elsewhere) == {str(stuck): (Trouble.STUCK, False)}


async def delete(stage: Stage, image_id: UUID) -> None:
    await stage.ask(lambda r: r.images.remove([image_id]))


async def let_the_original_go(stage: Stage, image_id: UUID) -> None:
    await stage.ask(lambda r: r.images.remove_originals([image_id]))


@pytest.mark.parametrize(
    ("key", "meanwhile"), [(small, delete), (original_key, delete), (original_key, let_the_original_go)]
)
async def test_what_goes_while_it_is_looked_at_is_not_missed(
    stage: Stage, key: Callable[[UUID], str], meanwhile: Harm
) -> None:
    image_id = await stage.done()
    (stage.folder / key(image_id)).unlink()

    async def in_between(_: object) -> None:
        await meanwhile(stage, image_id)

    stage.script.before("get", in_between)
    assert await audit(stage, repair=True) == []


async def render_anew(stage: Stage, image_id: UUID) -> None:
    await stage.reprocess(image_id)
    await stage.render(image_id)
    for key in await stage.removals():
        (stage.folder / key).unlink()


@pytest.mark.parametrize("meanwhile", [delete, let_the_original_go, render_anew])
async def test_whatever_happens_to_an_image_while_its_files_are_read_there_is_nothing_to_tell(
    stage: Stage, meanwhile: Harm
) -> None:
    image_id = await stage.done()

    async def in_between(_: object) -> None:
        if stage.script.tried["read"] == 1:
            await meanwhile(stage, image_id)
            await stage.deletion().run_once()

    stage.script.before("read", in_between)
    assert await audit(stage, repair=True) == []


async def test_an_image_that_is_accepted_and_done_meanwhile_has_no_orphans(stage: Stage) -> None:
    accepted: list[UUID] = []

    async def in_between(_: object) -> None:
        if not accepted:
            accepted.append(await stage.done())
            for key in await stage.files():
                stage.grow_old(key, GRACE + 60)

    stage.script.before("existing", in_between)
    stage.script.before("attempts_in_progress", in_between)
    await stage.put(original_key(uuid4()), age=GRACE + 60)
    assert [finding.trouble for finding in await audit(stage)] == [Trouble.ORPHANED]
    assert len(accepted) == 1


async def test_without_the_storage_there_is_no_verdict(stage: Stage) -> None:
    image_id = await stage.done()
    before = await stage.row(image_id)
    stage.script.fail("read", [StorageUnavailable])
    with pytest.raises(StorageUnavailable):
        await audit(stage, repair=True)
    assert await stage.row(image_id) == before


async def test_without_the_database_there_is_no_verdict(stage: Stage) -> None:
    stage.script.fail("oldest", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await audit(stage)
