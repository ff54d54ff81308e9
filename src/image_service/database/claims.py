"""Queries on claims. Each change is an UPDATE that names the state and the attempt that it expects (fencing)."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Update, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.database.event_log import record_events
from image_service.database.removals import remove_thumbnails
from image_service.database.repository import Repository
from image_service.database.transitions import (
    CLAIM,
    COMPLETE,
    COMPLETE_WITH_THUMBNAILS,
    FAIL,
    FAIL_WITH_EVENT,
    HELD_BY_CLAIM,
)
from image_service.domain.event import EventType
from image_service.domain.image import Claim, ImageError, Result, Thumbnail
from image_service.domain.lane import Lane
from image_service.domain.status import CLAIMABLE
from image_service.models import ImageRow, ThumbnailRow

_EXTEND: Final[Update] = (
    update(ImageRow)
    .where(*HELD_BY_CLAIM)
    .values(
        lease_until=in_seconds(bindparam("lease")),
        due_at=in_seconds(bindparam("lease")),
        updated_at=now(),
    )
)
"""Parameters: those of ``HELD_BY_CLAIM``, and lease."""


class ClaimStatements(Repository):
    """Queries on claims that are a single statement."""

    async def claim(self, image_id: UUID, *, lease: float) -> Claim | None:
        """NEW or PROCESSING → PROCESSING under a new attempt. None: it is finished, deleted, or leased to a worker."""
        rows = await CLAIM.rows(self._connection, {"image": image_id, "lease": lease})
        if not rows:
            return None
        (row,) = rows
        return Claim(
            image_id=image_id,
            attempt=row.attempt,
            attempts_charged=row.attempts_charged,
            decoder_failures=row.decoder_failures,
            sha256=row.sha256,
            recipe_name=row.recipe_name,
            reprocessing=row.finished_at is not None,
        )

    async def extend(self, claim: Claim, *, lease: float) -> bool:
        """Extend a claim's lease. False: the claim is lost."""
        return await self._changed(_EXTEND, {**_held(claim), "lease": lease})

    async def complete(self, claim: Claim, result: Result) -> bool:
        """PROCESSING → DONE with all thumbnails at once, for an image that has none yet.

        One statement on PostgreSQL. SQLite takes several; there ``Database.statement`` is a transaction.

        Args:
            claim: The caller's claim.
            result: What its attempt made.

        Returns:
            False if the claim is lost; then nothing was changed.

        Raises:
            ValueError: the claim is for reprocessing: replacing thumbnails takes a transaction.
        """
        if claim.reprocessing:
            raise ValueError("Replacing an image's thumbnails takes a transaction and superseded_for.")
        if self._connection.dialect.name == "postgresql":
            parameters = {**_held(claim), **_made(result), **_by_column(result.thumbnails)}
            return bool(await COMPLETE_WITH_THUMBNAILS.rows(self._connection, parameters))
        done = await self._changed(COMPLETE, {**_held(claim), **_made(result)})
        if done:
            await self._insert_thumbnails(claim, result)
            await record_events(self._connection, EventType.DONE, [claim.image_id])
        return done

    async def fail(self, claim: Claim, error: ImageError) -> bool:
        """PROCESSING → ERROR. False: the claim is lost, and nothing was changed."""
        parameters = {**_held(claim), "failed_code": error.code, "failed_detail": error.detail}
        if self._connection.dialect.name == "postgresql":
            return bool(await FAIL_WITH_EVENT.rows(self._connection, parameters))
        failed = await self._changed(FAIL, parameters)
        if failed:
            await record_events(self._connection, EventType.FAILED, [claim.image_id])
        return failed

    async def release(
        self,
        claim: Claim,
        *,
        rest: float,
        due_in: float,
        charge: bool,
        decoder_failed: bool = False,
        lane: Lane | None = None,
    ) -> bool:
        """Give up a claim without a result. False: the claim is lost, and nothing was changed.

        Args:
            claim: The caller's claim.
            rest: Seconds before the image may be claimed again.
            due_in: Seconds after which the reconciler queues it again.
            charge: Whether the attempt counts against the image.
            decoder_failed: Whether the decoder died on it.
            lane: The lane to queue it in; None keeps the last one.
        """
        statement = (
            update(ImageRow)
            .where(*HELD_BY_CLAIM)
            .values(
                lease_until=in_seconds(rest),
                due_at=in_seconds(due_in),
                # From the claim rather than from the row, so that a second call changes nothing more.
                attempts_charged=claim.attempts_charged - (0 if charge else 1),
                decoder_failures=claim.decoder_failures + (1 if decoder_failed else 0),
                updated_at=now(),
                **({} if lane is None else {"lane": lane}),
            )
        )
        return await self._changed(statement, _held(claim))

    async def attempts_in_progress(self, image_ids: Collection[UUID]) -> set[tuple[UUID, int]]:
        """The newest attempt of each of these images that may still record its thumbnails.

        The image is unfinished, or an attempt on outputs that it lacks has begun.
        """
        result = await self._connection.execute(
            select(ImageRow.id, ImageRow.attempt).where(
                ImageRow.id.in_(image_ids),
                or_(ImageRow.status.in_(CLAIMABLE), ImageRow.outputs_lease_until.is_not(None)),
            )
        )
        return {(row.id, row.attempt) for row in result}

    async def _insert_thumbnails(self, claim: Claim, result: Result) -> None:
        await insert_thumbnails(self._connection, claim.image_id, result.thumbnails)


class ClaimRepository(ClaimStatements):
    """All queries on claims."""

    async def complete(self, claim: Claim, result: Result, *, superseded_for: float | None = None) -> bool:
        """PROCESSING → DONE with all thumbnails at once; the files of earlier thumbnails are recorded for removal.

        Args:
            claim: The caller's claim.
            result: What its attempt made.
            superseded_for: Seconds for which a reader may still be on the way to an earlier thumbnail. Required if the
                claim is for reprocessing.

        Returns:
            False if the claim is lost; then nothing was changed.
        """
        if not claim.reprocessing or superseded_for is None:
            return await super().complete(claim, result)
        # The UPDATE comes first: it locks the row, so that no other attempt can get between the statements.
        done = await self._changed(COMPLETE, {**_held(claim), **_made(result)})
        if done:
            await remove_thumbnails(self._connection, [claim.image_id], due_in=superseded_for)
            await self._insert_thumbnails(claim, result)
            await record_events(self._connection, EventType.DONE, [claim.image_id])
        return done


async def insert_thumbnails(connection: AsyncConnection, image_id: UUID, thumbnails: Sequence[Thumbnail]) -> None:
    """Record thumbnails of an image."""
    if thumbnails:
        rows = [{"image_id": image_id, **asdict(thumbnail)} for thumbnail in thumbnails]
        await connection.execute(insert(ThumbnailRow), rows)


def _held(claim: Claim) -> dict[str, Any]:
    """The parameters of ``HELD_BY_CLAIM``."""
    return {"image": claim.image_id, "held": claim.attempt}


def _made(result: Result) -> dict[str, Any]:
    """The parameters of ``COMPLETE`` that the result gives."""
    return {
        "made_width": result.width,
        "made_height": result.height,
        "made_placeholder": result.traits.placeholder,
        "made_dominant_colour": result.traits.dominant_colour,
        "made_metadata_removed": list(result.traits.metadata_removed),
        "made_recipe": result.recipe,
        "made_pending": list(result.pending) or None,
        "made_left_out": dict(result.left_out) or None,
        "outputs_due_in": 0.0 if result.pending else None,
    }


def _by_column(thumbnails: Sequence[Thumbnail]) -> dict[str, list[Any]]:
    """The parameters of ``COMPLETE_WITH_THUMBNAILS`` that the thumbnails give."""
    return {f"each_{field.name}": [getattr(each, field.name) for each in thumbnails] for field in fields(Thumbnail)}
