"""Statements about claims: each is one UPDATE that names the state, and the attempt, that it expects (fencing)."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database import statements
from image_service.database.clock import in_seconds, now
from image_service.database.shared import changed_a_row, remove_thumbnails
from image_service.domain.image import Claim, ImageError, Result, Thumbnail
from image_service.domain.status import CLAIMABLE, Status
from image_service.models import ImageRow, ThumbnailRow


class ClaimRepository:
    """Statements about claims, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, image_id: UUID, *, lease: float) -> Claim | None:
        """NEW or PROCESSING → PROCESSING under a new attempt; None if it is finished, gone or somebody else's."""
        parameters = {"image": image_id, "lease": lease}
        row = (await self._connection.execute(statements.CLAIM, parameters)).one_or_none()
        if row is None:
            return None
        return Claim(
            image_id=image_id,
            attempt=row.attempt,
            attempts_charged=row.attempts_charged,
            decoder_failures=row.decoder_failures,
            reprocessing=row.finished_at is not None,
        )

    async def extend(self, claim: Claim, *, lease: float) -> bool:
        """Renew a claim's lease. False: the claim is lost."""
        return await changed_a_row(self._connection, statements.EXTEND, {**_held(claim), "lease": lease})

    async def complete(self, claim: Claim, result: Result, *, superseded_for: float) -> bool:
        """PROCESSING → DONE with all thumbnails at once. False: the claim is lost, and nothing was changed.

        The thumbnails of an earlier rendering are given to ``removals``: that takes several statements. An image's
        first takes one on PostgreSQL.

        Args:
            claim: The caller's claim.
            result: What it made.
            superseded_for: Seconds for which a reader may still be on the way to an earlier thumbnail.
        """
        image = {**_held(claim), **_made(result)}
        if self._connection.dialect.name == "postgresql" and not claim.reprocessing:
            statement, lists = statements.COMPLETE_WITH_THUMBNAILS, _by_column(result.thumbnails)
            return bool((await self._connection.execute(statement, {**image, **lists})).scalar_one())
        done = await changed_a_row(self._connection, statements.COMPLETE, image)
        if done:
            # The UPDATE came first: it holds the row, so no other attempt can be between the statements.
            if claim.reprocessing:
                await remove_thumbnails(self._connection, [claim.image_id], due_in=superseded_for)
            rows = [{"image_id": claim.image_id, **asdict(thumbnail)} for thumbnail in result.thumbnails]
            await self._connection.execute(insert(ThumbnailRow), rows)
        return done

    async def fail(self, claim: Claim, error: ImageError) -> bool:
        """PROCESSING → ERROR. False: the claim is lost, and nothing was changed."""
        failed = {"status": Status.ERROR, "error_code": error.code, "error_detail": error.detail}
        return await changed_a_row(
            self._connection,
            update(ImageRow).where(*statements.HELD).values(**failed, **statements.FINISHED),
            _held(claim),
        )

    async def release(
        self, claim: Claim, *, rest: float, due_in: float, charge: bool, decoder_failed: bool = False
    ) -> bool:
        """Give a claim up without a result. False: the claim is lost, and nothing was changed.

        Args:
            claim: The caller's claim.
            rest: Seconds before anybody may claim the image again.
            due_in: Seconds after which the reconciler queues it again.
            charge: Whether the attempt counts against the image.
            decoder_failed: Whether the decoder died on it.
        """
        statement = (
            update(ImageRow)
            .where(*statements.HELD)
            .values(
                lease_until=in_seconds(rest),
                due_at=in_seconds(due_in),
                # From the claim rather than from the row: doing it twice is the same as once.
                attempts_charged=claim.attempts_charged - (0 if charge else 1),
                decoder_failures=claim.decoder_failures + (1 if decoder_failed else 0),
                updated_at=now(),
            )
        )
        return await changed_a_row(self._connection, statement, _held(claim))

    async def attempts_in_progress(self, image_ids: Collection[UUID]) -> set[tuple[UUID, int]]:
        """The attempts of these images that could still become their result."""
        result = await self._connection.execute(
            select(ImageRow.id, ImageRow.attempt).where(ImageRow.id.in_(image_ids), ImageRow.status.in_(CLAIMABLE))
        )
        return {(row.id, row.attempt) for row in result}


def _held(claim: Claim) -> dict[str, Any]:
    """The parameters of ``HELD``: a change that only the holder of the newest attempt can make."""
    return {"image": claim.image_id, "held": claim.attempt}


def _made(result: Result) -> dict[str, Any]:
    return {
        "made_width": result.width,
        "made_height": result.height,
        "made_placeholder": result.traits.placeholder,
        "made_dominant_colour": result.traits.dominant_colour,
        "made_metadata_removed": list(result.traits.metadata_removed),
        "made_recipe": result.recipe,
    }


def _by_column(thumbnails: Sequence[Thumbnail]) -> dict[str, list[Any]]:
    return {f"each_{field.name}": [getattr(each, field.name) for each in thumbnails] for field in fields(Thumbnail)}
