"""A worker of the version before, which knows no recipes, beside workers of this one: its statements, on PostgreSQL.

It would make its built-in outputs of any image. So it must not get an image of another recipe, and must not harm it.
"""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from harness.rows import add, claimed, complete, execute, row, status_of, thumbnail, upload
from image_service.database import Database
from image_service.database.failures import Failure, classify
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status

CLAIM = text("""
    UPDATE images SET status = 'PROCESSING', attempt = attempt + 1, attempts_charged = attempts_charged + 1,
        lease_until = statement_timestamp() + interval '60 seconds',
        due_at = statement_timestamp() + interval '60 seconds', updated_at = statement_timestamp()
    WHERE id = :image AND status IN ('NEW', 'PROCESSING')
        AND (lease_until IS NULL OR lease_until <= statement_timestamp())
    RETURNING attempt
""")
COMPLETE = text("""
    WITH done AS (
        UPDATE images SET status = 'DONE', width = 4, height = 3, recipe = :recipe, lease_until = NULL, due_at = NULL,
            finished_at = statement_timestamp(), updated_at = statement_timestamp()
        WHERE id = :image AND attempt = :held AND status = 'PROCESSING' RETURNING id
    ), made AS (
        INSERT INTO thumbnails (image_id, preset, key, content_type, width, height, size_bytes, sha256)
        SELECT id, '100x100', 'thumbnails/old', 'image/jpeg', 4, 3, 1, repeat('ab', 32) FROM done
    )
    SELECT count(*) FROM done
""")
MARK_QUEUED = text("""
    UPDATE images SET status = 'PROCESSING', queued_at = statement_timestamp(),
        due_at = statement_timestamp() + interval '300 seconds', updated_at = statement_timestamp()
    WHERE id = :image AND status = 'NEW'
""")
RESERVE = text("""
    UPDATE images SET due_at = statement_timestamp() + interval '300 seconds', queued_at = statement_timestamp(),
        lease_until = NULL, publishes = publishes + 1
    WHERE id = :image
""")
REPROCESS = text("""
    UPDATE images SET status = 'NEW', attempt = attempt + 1, attempts_charged = 0, decoder_failures = 0, publishes = 0,
        error_code = NULL, error_detail = NULL, queued_at = NULL, due_at = statement_timestamp(),
        updated_at = statement_timestamp()
    WHERE id = :image AND status IN ('DONE', 'ERROR') AND original_removed_at IS NULL
""")
MAKE_DUE = text("""
    UPDATE images SET due_at = statement_timestamp(), lease_until = statement_timestamp()
    WHERE id = :image AND status IN ('NEW', 'PROCESSING')
""")


async def avatar(database: Database) -> UUID:
    """Record an image of a named recipe, as the API of this version does."""
    original = upload(recipe_name="avatar")
    await add(database, original)
    return original.id


async def scalar(database: Database, statement: Any, **parameters: object) -> object:  # noqa: ANN401  (as SQLAlchemy types it)
    async with database.transaction() as repositories:
        return (await repositories.connection.execute(statement, parameters)).scalar_one_or_none()


async def is_refused(database: Database, image_id: UUID) -> None:
    """Assert that the version before cannot claim the image, and that this changes nothing.

    That version does not charge an error of the claim, and returns the message to the queue.
    """
    before = await row(database, image_id)
    with pytest.raises(IntegrityError, match="ck_images_recipe_known") as refusal:
        await scalar(database, CLAIM, image=image_id)
    assert classify(refusal.value) is not Failure.OUTAGE
    assert await row(database, image_id) == before


async def test_version_before_cannot_claim_an_image_of_a_named_recipe(postgresql: Database) -> None:
    image_id = await avatar(postgresql)
    await is_refused(postgresql, image_id)
    await execute(postgresql, MARK_QUEUED, {"image": image_id})
    await is_refused(postgresql, image_id)
    claim = await claimed(postgresql, image_id, lease=-1)
    await is_refused(postgresql, image_id)
    assert await scalar(postgresql, COMPLETE, image=image_id, held=claim.attempt + 1, recipe="0" * 16) == 0
    await execute(postgresql, RESERVE, {"image": image_id})
    await is_refused(postgresql, image_id)
    await execute(postgresql, MAKE_DUE, {"image": image_id})
    await is_refused(postgresql, image_id)
    newest = await claimed(postgresql, image_id)
    assert await complete(postgresql, newest)


async def test_version_before_may_reprocess_an_image_of_a_named_recipe_for_a_worker_of_this_one(
    postgresql: Database,
) -> None:
    image_id = await avatar(postgresql)
    assert await complete(postgresql, await claimed(postgresql, image_id))
    await execute(postgresql, REPROCESS, {"image": image_id})
    await is_refused(postgresql, image_id)
    await execute(postgresql, MARK_QUEUED, {"image": image_id})
    await is_refused(postgresql, image_id)
    claim = await claimed(postgresql, image_id)
    assert await complete(postgresql, claim, thumbnail(claim))


async def test_image_that_version_before_reprocessed_and_made_due_is_queued(postgresql: Database) -> None:
    image_id = await avatar(postgresql)
    assert await complete(postgresql, await claimed(postgresql, image_id))
    await execute(postgresql, REPROCESS, {"image": image_id})
    await execute(postgresql, MAKE_DUE, {"image": image_id})
    async with postgresql.statement() as repositories:
        assert await repositories.scheduling.mark_queued(image_id, due_in=60)
    await is_refused(postgresql, image_id)
    await claimed(postgresql, image_id)


async def test_version_before_makes_images_of_the_default_recipe(postgresql: Database) -> None:
    original = upload()
    await add(postgresql, original)
    held = await scalar(postgresql, CLAIM, image=original.id)
    fingerprint = DEFAULT_RECIPE.fingerprint
    assert await scalar(postgresql, COMPLETE, image=original.id, held=held, recipe=fingerprint) == 1
    assert await status_of(postgresql, original.id) is Status.DONE
    async with postgresql.transaction() as repositories:
        recipes = {"default": fingerprint}
        assert await repositories.catalogue.outdated(recipes, among=1) == {original.id: False}
