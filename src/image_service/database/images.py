"""Every query about images. Each change of state is one UPDATE that names the state it expects."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Executable, Row, Update, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database import statements
from image_service.database.clock import in_seconds, now
from image_service.database.removals import RemovalRepository
from image_service.database.rows import image_of
from image_service.database.states import in_state
from image_service.domain.image import Claim, Image, ImageError, Original, Result, Thumbnail
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.status import CLAIMABLE, TERMINAL, Status
from image_service.models import ImageRow, ThumbnailRow


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImage:
    """An unfinished image that the reconciler looks at."""

    id: UUID
    status: Status
    lane: Lane
    due_at: datetime
    publishes: int


class ImageRepository:
    """Queries about images, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def probe(self) -> None:
        """Ask for an image, any or none: it shows that the tables are there too, with all their columns."""
        await self._connection.execute(select(*ImageRow.__table__.c).limit(1))

    async def add(self, original: Original, *, lane: Lane, due_in: float, idempotency_key: str | None = None) -> None:
        """Record an accepted upload as NEW. Doing it twice is the same as once: the id is the caller's.

        Nothing is recorded where another image has the idempotency key: ask ``with_key`` whose it is.

        Args:
            original: The stored upload.
            lane: Where it is going to wait.
            due_in: Seconds after which the reconciler queues it, should nobody have.
            idempotency_key: What the client tells a repeated upload by.
        """
        values = {
            "id": original.id,
            "format": original.header.format,
            "width": original.header.width,
            "height": original.header.height,
            "size_bytes": original.size_bytes,
            "sha256": original.sha256,
            "idempotency_key": idempotency_key,
            "lane": lane,
            "due_in": due_in,
        }
        await self._connection.execute(statements.ADD[self._connection.dialect.name], values)

    async def get(self, image_id: UUID) -> Image | None:
        """An image with its thumbnails."""
        return await self._one(statements.IMAGE_BY_ID, {"image": image_id})

    async def with_key(self, idempotency_key: str) -> Image | None:
        """The image that was uploaded under an idempotency key."""
        return await self._one(statements.IMAGE_BY_KEY, {"key": idempotency_key})

    async def mark_queued(self, image_id: UUID, *, due_in: float) -> bool:
        """NEW → PROCESSING: the broker has confirmed a message. False: somebody was faster, which is fine.

        Args:
            image_id: The image.
            due_in: Seconds after which the reconciler queues it again, should no worker have taken it.
        """
        statement = statements.MARK_QUEUED[self._connection.dialect.name]
        return await self._changed(statement, {"image": image_id, "due_in": due_in})

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
            again=row.finished_at is not None,
        )

    async def extend(self, claim: Claim, *, lease: float) -> bool:
        """Renew a claim's lease. False: the claim is lost."""
        return await self._changed(statements.EXTEND, {**_held(claim), "lease": lease})

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
        if self._connection.dialect.name == "postgresql" and not claim.again:
            statement, lists = statements.COMPLETE_WITH_THUMBNAILS, _by_column(result.thumbnails)
            return bool((await self._connection.execute(statement, {**image, **lists})).scalar_one())
        done = await self._changed(statements.COMPLETE, image)
        if done:
            # The UPDATE came first: it holds the row, so no other attempt can be between the statements.
            if claim.again:
                await self._forget_thumbnails([claim.image_id], due_in=superseded_for)
            rows = [{"image_id": claim.image_id, **asdict(thumbnail)} for thumbnail in result.thumbnails]
            await self._connection.execute(insert(ThumbnailRow), rows)
        return done

    async def fail(self, claim: Claim, error: ImageError) -> bool:
        """PROCESSING → ERROR. False: the claim is lost, and nothing was changed."""
        failed = {"status": Status.ERROR, "error_code": error.code, "error_detail": error.detail}
        return await self._changed(
            update(ImageRow).where(*statements.HELD).values(**failed, **statements.FINISHED), _held(claim)
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
        return await self._changed(statement, _held(claim))

    async def reprocess(
        self, image_ids: Collection[UUID], *, due_in: float, lane: Lane | None = None, only: Status | None = None
    ) -> set[UUID]:
        """DONE or ERROR → NEW, if there still is an original; returns which images that were.

        Attempts are counted from nothing again. The thumbnails stay until the new ones are complete.

        Args:
            image_ids: The images.
            due_in: Seconds after which the reconciler queues them, should nobody have.
            lane: Where they are to wait; where they waited last unless told.
            only: The state that they must be in, where it has to be one of the two.
        """
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                ImageRow.status.in_(TERMINAL if only is None else (only,)),
                ImageRow.original_removed_at.is_(None),
            )
            .values(
                status=Status.NEW,
                # A worker that never got the reply to its last COMMIT, and repeats it, finds its claim lost.
                attempt=ImageRow.attempt + 1,
                attempts_charged=0,
                decoder_failures=0,
                publishes=0,
                error_code=None,
                error_detail=None,
                queued_at=None,
                due_at=in_seconds(due_in),
                updated_at=now(),
                **({} if lane is None else {"lane": lane}),
            )
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def remove(self, image_ids: Collection[UUID], *, only_finished: bool = False) -> list[str]:
        """Forget images, in whatever state, and give their files to ``removals``; returns the files' keys.

        What a worker makes of one meanwhile has no row to go to: the worker removes it, or the sweeper does.

        Args:
            image_ids: The images; those that there are not are left out.
            only_finished: Whether to spare those that are being processed.
        """
        statuses = TERMINAL if only_finished else tuple(Status)
        # Changes nothing, but holds the rows: thumbnails that a worker is just recording are waited for.
        statement = (
            update(ImageRow)
            .where(ImageRow.id.in_(image_ids), ImageRow.status.in_(statuses))
            .values(updated_at=now())
            .returning(ImageRow.id)
        )
        found = (await self._connection.execute(statement)).scalars().all()
        originals = list(map(original_key, found))
        await RemovalRepository(self._connection).add(originals, due_in=0)
        thumbnails = await self._forget_thumbnails(found, due_in=0)
        await self._connection.execute(delete(ImageRow).where(ImageRow.id.in_(found)))
        return [*originals, *thumbnails]

    async def remove_originals(self, image_ids: Collection[UUID]) -> list[str]:
        """Give the originals of finished images to ``removals``; returns the files' keys.

        The images and their thumbnails stay, but cannot be reprocessed.
        """
        statement = (
            update(ImageRow)
            .where(ImageRow.id.in_(image_ids), ImageRow.status.in_(TERMINAL), ImageRow.original_removed_at.is_(None))
            .values(original_removed_at=now(), updated_at=now())
            .returning(ImageRow.id)
        )
        originals = list(map(original_key, (await self._connection.execute(statement)).scalars()))
        await RemovalRepository(self._connection).add(originals, due_in=0)
        return originals

    async def due(self, *, limit: int) -> Sequence[OpenImage]:
        """Unfinished images whose time has come, the longest waiting first."""
        return await self._open(
            select(*_OPEN).where(ImageRow.due_at <= now()).order_by(ImageRow.due_at).limit(limit),
        )

    async def unclaimed(self, lane: Lane, *, queued_before: float, limit: int) -> Sequence[OpenImage]:
        """Images of a lane queued more than ``queued_before`` seconds ago that no worker has taken since."""
        waiting = select(*_OPEN).where(*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        return await self._open(waiting.order_by(ImageRow.queued_at).limit(limit))

    async def put_off(self, lane: Lane, *, messages: int, queued_before: float, due_in: float) -> int:
        """Look later after the due images of a lane that no worker has taken yet; returns how many those are.

        But not after those whose messages must be missing, since more images wait than messages: those are the ones
        that were queued the longest ago.

        Args:
            lane: The lane.
            messages: How many messages waited in it.
            queued_before: How many seconds ago that was.
            due_in: Seconds until they are looked at again.
        """
        waiting = (*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        found = (await self._connection.execute(select(func.count()).where(*waiting))).scalar_one()
        due = select(ImageRow.id).where(*waiting, ImageRow.due_at <= now()).order_by(ImageRow.queued_at)
        # Locked, or a worker's claim or another reconciler's message could be overlooked in between.
        due = due.offset(max(0, found - messages)).with_for_update(skip_locked=True)
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.id.in_(due)).values(due_at=in_seconds(due_in))
        )
        return result.rowcount

    async def take_for_publishing(self, image: OpenImage, *, due_in: float) -> bool:
        """Move an image's due time on, if nobody else has: of two reconcilers, one publishes.

        A lease that has run out is forgotten with it: the image counts as queued and unclaimed again.

        Args:
            image: As it was seen.
            due_in: Seconds until it is looked at again.
        """
        return await self._changed(
            update(ImageRow)
            .where(ImageRow.id == image.id, ImageRow.status == image.status, ImageRow.due_at == image.due_at)
            .values(due_at=in_seconds(due_in), queued_at=now(), lease_until=None, publishes=ImageRow.publishes + 1)
        )

    async def resume_all(self) -> int:
        """End every lease and make every unfinished image due now; returns how many.

        Only for a process that knows it is the only one: standalone, at its start.
        """
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.due_at.is_not(None)).values(due_at=now(), lease_until=now())
        )
        return result.rowcount

    async def hurry(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Make unfinished images due now, unless a worker holds them; returns which those were."""
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                ImageRow.status.in_(CLAIMABLE),
                or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
            )
            # A lease that has just run out, rather than none: its message must not count as one that still waits.
            .values(due_at=now(), lease_until=now())
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def existing(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Which of these images are recorded."""
        result = await self._connection.execute(select(ImageRow.id).where(ImageRow.id.in_(image_ids)))
        return set(result.scalars())

    async def attempts_in_progress(self, image_ids: Collection[UUID]) -> set[tuple[UUID, int]]:
        """The attempts of these images that could still become their result."""
        result = await self._connection.execute(
            select(ImageRow.id, ImageRow.attempt).where(ImageRow.id.in_(image_ids), ImageRow.status.in_(CLAIMABLE))
        )
        return {(row.id, row.attempt) for row in result}

    async def thumbnail_keys(self, image_ids: Collection[UUID]) -> set[str]:
        """The storage keys that these images' thumbnails are recorded under."""
        result = await self._connection.execute(
            select(ThumbnailRow.key).where(ThumbnailRow.image_id.in_(image_ids)),
        )
        return set(result.scalars())

    async def _one(self, statement: Executable, parameters: dict[str, Any]) -> Image | None:
        rows = (await self._connection.execute(statement, parameters)).mappings().all()
        return image_of(rows) if rows else None

    async def _forget_thumbnails(self, image_ids: Collection[UUID], *, due_in: float) -> Sequence[str]:
        statement = delete(ThumbnailRow).where(ThumbnailRow.image_id.in_(image_ids)).returning(ThumbnailRow.key)
        keys = (await self._connection.execute(statement)).scalars().all()
        await RemovalRepository(self._connection).add(keys, due_in=due_in)
        return keys

    async def _changed(self, statement: Update, parameters: dict[str, Any] | None = None) -> bool:
        return bool((await self._connection.execute(statement, parameters)).rowcount)

    async def _open(self, statement: Any) -> Sequence[OpenImage]:  # noqa: ANN401 — a Select of so many columns has no shorter type
        rows: Sequence[Row[Any]] = (await self._connection.execute(statement)).all()
        return [
            OpenImage(
                id=row.id,
                status=row.status,
                lane=row.lane,
                due_at=row.due_at,
                publishes=row.publishes,
            )
            for row in rows
        ]


_OPEN = (
    ImageRow.id,
    ImageRow.status,
    ImageRow.lane,
    ImageRow.due_at,
    ImageRow.publishes,
)


def _unclaimed(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    """Queued in a lane, and taken by no worker."""
    return in_state(Status.PROCESSING), ImageRow.lease_until.is_(None), ImageRow.lane == lane


def _held(claim: Claim) -> dict[str, Any]:
    """The parameters of ``HELD``: a change that only the holder of the newest attempt can make."""
    return {"image": claim.image_id, "held": claim.attempt}


def _made(result: Result) -> dict[str, Any]:
    return {
        "made_width": result.width,
        "made_height": result.height,
        "made_placeholder": result.findings.placeholder,
        "made_dominant_colour": result.findings.dominant_colour,
        "made_metadata_removed": list(result.findings.metadata_removed),
        "made_recipe": result.recipe,
    }


def _by_column(thumbnails: Sequence[Thumbnail]) -> dict[str, list[Any]]:
    return {f"each_{field.name}": [getattr(each, field.name) for each in thumbnails] for field in fields(Thumbnail)}
