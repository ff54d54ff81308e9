"""Every query about images. Each change of state is one UPDATE that names the state it expects."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, RowMapping, Update, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.domain.image import (
    Claim,
    Findings,
    Image,
    ImageError,
    ImageHeader,
    MetadataKind,
    Original,
    Thumbnail,
)
from image_service.domain.status import CLAIMABLE, Status
from image_service.models import ImageRow, ThumbnailRow


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImage:
    """An unfinished image that the reconciler looks at."""

    id: UUID
    status: Status
    header: ImageHeader
    due_at: datetime
    publishes: int


class ImageRepository:
    """Queries about images, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def probe(self) -> None:
        """Ask for an image, any or none: it shows that the tables are there too."""
        await self._connection.execute(select(ImageRow.id).limit(1))

    async def add(self, original: Original, *, due_in: float) -> None:
        """Record an accepted upload as NEW. Doing it twice is the same as once: the id is the caller's.

        Args:
            original: The stored upload.
            due_in: Seconds after which the reconciler queues it, should nobody have.
        """
        values = {
            "id": original.id,
            "status": Status.NEW,
            "format": original.header.format,
            "width": original.header.width,
            "height": original.header.height,
            "size_bytes": original.size_bytes,
            "sha256": original.sha256,
            "due_at": in_seconds(due_in),
            "created_at": now(),
            "updated_at": now(),
        }
        # Both dialects spell it the same; SQLAlchemy has no common word for it.
        insert_into = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        await self._connection.execute(insert_into(ImageRow).values(values).on_conflict_do_nothing())

    async def get(self, image_id: UUID) -> Image | None:
        """An image with its thumbnails."""
        statement = (
            select(*_IMAGE, *_THUMBNAIL)
            .select_from(ImageRow)
            .outerjoin(ThumbnailRow, ThumbnailRow.image_id == ImageRow.id)
            .where(ImageRow.id == image_id)
            .order_by(ThumbnailRow.width, ThumbnailRow.preset)
        )
        rows = (await self._connection.execute(statement)).mappings().all()
        return _image(rows) if rows else None

    async def mark_queued(self, image_id: UUID, *, due_in: float) -> bool:
        """NEW → PROCESSING: the broker has confirmed a message. False: somebody was faster, which is fine.

        Args:
            image_id: The image.
            due_in: Seconds after which the reconciler queues it again, should no worker have taken it.
        """
        return await self._changed(
            update(ImageRow)
            .where(ImageRow.id == image_id, ImageRow.status == Status.NEW)
            .values(status=Status.PROCESSING, queued_at=now(), due_at=in_seconds(due_in), updated_at=now())
        )

    async def claim(self, image_id: UUID, *, lease: float) -> Claim | None:
        """NEW or PROCESSING → PROCESSING under a new attempt; None if it is finished, gone or somebody else's."""
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id == image_id,
                ImageRow.status.in_(CLAIMABLE),
                or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
            )
            .values(
                status=Status.PROCESSING,
                attempt=ImageRow.attempt + 1,
                attempts_charged=ImageRow.attempts_charged + 1,
                lease_until=in_seconds(lease),
                due_at=in_seconds(lease),
                updated_at=now(),
            )
            .returning(ImageRow.attempt, ImageRow.attempts_charged, ImageRow.decoder_failures)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            return None
        return Claim(
            image_id=image_id,
            attempt=row.attempt,
            attempts_charged=row.attempts_charged,
            decoder_failures=row.decoder_failures,
        )

    async def extend(self, claim: Claim, *, lease: float) -> bool:
        """Renew a claim's lease. False: the claim is lost."""
        return await self._changed(
            _held(claim).values(lease_until=in_seconds(lease), due_at=in_seconds(lease), updated_at=now())
        )

    async def complete(
        self, claim: Claim, *, width: int, height: int, thumbnails: Iterable[Thumbnail], findings: Findings
    ) -> bool:
        """PROCESSING → DONE with all thumbnails at once. False: the claim is lost, and nothing was changed.

        Args:
            claim: The caller's claim.
            width: Pixels of the original, upright.
            height: Pixels of the original, upright.
            thumbnails: The stored thumbnails.
            findings: What else the rendering told.
        """
        done = await self._changed(
            _held(claim).values(
                status=Status.DONE,
                width=width,
                height=height,
                placeholder=findings.placeholder,
                dominant_colour=findings.dominant_colour,
                metadata_removed=list(findings.metadata_removed),
                **_FINISHED,
            )
        )
        if done:
            # The UPDATE came first: it holds the row, so no other attempt can be between the two statements.
            rows = [
                {
                    "image_id": claim.image_id,
                    "preset": thumbnail.preset,
                    "key": thumbnail.key,
                    "content_type": thumbnail.content_type,
                    "width": thumbnail.width,
                    "height": thumbnail.height,
                    "size_bytes": thumbnail.size_bytes,
                    "sha256": thumbnail.sha256,
                }
                for thumbnail in thumbnails
            ]
            await self._connection.execute(insert(ThumbnailRow), rows)
        return done

    async def fail(self, claim: Claim, error: ImageError) -> bool:
        """PROCESSING → ERROR. False: the claim is lost, and nothing was changed."""
        return await self._changed(
            _held(claim).values(status=Status.ERROR, error_code=error.code, error_detail=error.detail, **_FINISHED)
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
        return await self._changed(
            _held(claim).values(
                lease_until=in_seconds(rest),
                due_at=in_seconds(due_in),
                # From the claim rather than from the row: doing it twice is the same as once.
                attempts_charged=claim.attempts_charged - (0 if charge else 1),
                decoder_failures=claim.decoder_failures + (1 if decoder_failed else 0),
                updated_at=now(),
            )
        )

    async def due(self, *, limit: int) -> Sequence[OpenImage]:
        """Unfinished images whose time has come, the longest waiting first."""
        return await self._open(
            select(*_OPEN).where(ImageRow.due_at <= now()).order_by(ImageRow.due_at).limit(limit),
        )

    async def unclaimed(self, *, queued_before: float, limit: int) -> Sequence[OpenImage]:
        """Images queued more than ``queued_before`` seconds ago that no worker has taken since."""
        return await self._open(
            select(*_OPEN)
            .where(
                ImageRow.status == Status.PROCESSING,
                ImageRow.lease_until.is_(None),
                ImageRow.queued_at <= in_seconds(-queued_before),
            )
            .order_by(ImageRow.queued_at)
            .limit(limit),
        )

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
        """Free every claim and make every unfinished image due now; returns how many.

        Only for a process that knows it is the only one: standalone, at its start.
        """
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.due_at.is_not(None)).values(lease_until=None, due_at=now())
        )
        return result.rowcount

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

    async def _changed(self, statement: Update) -> bool:
        return bool((await self._connection.execute(statement)).rowcount)

    async def _open(self, statement: Any) -> Sequence[OpenImage]:  # noqa: ANN401 — a Select of so many columns has no shorter type
        rows: Sequence[Row[Any]] = (await self._connection.execute(statement)).all()
        return [
            OpenImage(
                id=row.id,
                status=row.status,
                header=ImageHeader(format=row.format, width=row.width, height=row.height),
                due_at=row.due_at,
                publishes=row.publishes,
            )
            for row in rows
        ]


_IMAGE = (
    ImageRow.id,
    ImageRow.status,
    ImageRow.format,
    ImageRow.width,
    ImageRow.height,
    ImageRow.size_bytes,
    ImageRow.sha256,
    ImageRow.created_at,
    ImageRow.updated_at,
    ImageRow.finished_at,
    ImageRow.error_code,
    ImageRow.error_detail,
    ImageRow.placeholder,
    ImageRow.dominant_colour,
    ImageRow.metadata_removed,
)
_THUMBNAIL = (
    ThumbnailRow.preset,
    ThumbnailRow.key,
    ThumbnailRow.content_type,
    ThumbnailRow.width.label("thumbnail_width"),
    ThumbnailRow.height.label("thumbnail_height"),
    ThumbnailRow.size_bytes.label("thumbnail_size_bytes"),
    ThumbnailRow.sha256.label("thumbnail_sha256"),
)
_OPEN = (
    ImageRow.id,
    ImageRow.status,
    ImageRow.format,
    ImageRow.width,
    ImageRow.height,
    ImageRow.due_at,
    ImageRow.publishes,
)
_FINISHED = {"lease_until": None, "due_at": None, "finished_at": now(), "updated_at": now()}


def _held(claim: Claim) -> Update:
    """An UPDATE that only the holder of the newest attempt can make."""
    return update(ImageRow).where(
        ImageRow.id == claim.image_id,
        ImageRow.attempt == claim.attempt,
        ImageRow.status == Status.PROCESSING,
    )


def _image(rows: Sequence[RowMapping]) -> Image:
    row = rows[0]
    return Image(
        id=row["id"],
        status=row["status"],
        header=ImageHeader(format=row["format"], width=row["width"], height=row["height"]),
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        error=ImageError(code=row["error_code"], detail=row["error_detail"]) if row["error_code"] else None,
        findings=_findings(row),
        thumbnails=tuple(_thumbnail(row) for row in rows if row["preset"] is not None),
    )


def _findings(row: RowMapping) -> Findings | None:
    if row["placeholder"] is None:
        return None
    return Findings(
        placeholder=row["placeholder"],
        dominant_colour=row["dominant_colour"],
        metadata_removed=tuple(map(MetadataKind, row["metadata_removed"])),
    )


def _thumbnail(row: RowMapping) -> Thumbnail:
    return Thumbnail(
        preset=row["preset"],
        key=row["key"],
        content_type=row["content_type"],
        width=row["thumbnail_width"],
        height=row["thumbnail_height"],
        size_bytes=row["thumbnail_size_bytes"],
        sha256=row["thumbnail_sha256"],
    )
