"""Queries on outputs that DONE images lack: optional ones, and those of a recipe that has changed.

Such an image stays DONE. ``outputs_due_at`` says that it lacks some. Claims on them are fenced by the same attempt
number as all others, so that reprocessing and deletion end them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, Update, and_, bindparam, case, func, null, or_, select, update

from image_service.database.claims import insert_thumbnails
from image_service.database.clock import in_seconds, now
from image_service.database.event_log import record_events
from image_service.database.prepared import Prepared
from image_service.database.removals import remove_thumbnails
from image_service.database.repository import Repository
from image_service.database.states import in_state
from image_service.database.transitions import HAS_EVENT, NO_LATE_OUTPUTS
from image_service.domain.event import EventType
from image_service.domain.image import Claim, LateResult
from image_service.domain.status import Status
from image_service.models import ImageRow, ThumbnailRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingImage:
    """What the reconciler knows about a DONE image that lacks outputs."""

    id: UUID
    due_at: datetime
    publishes: int


_THIS_IMAGE = ImageRow.id == bindparam("image")

_HELD: Final = (
    _THIS_IMAGE,
    ImageRow.attempt == bindparam("held"),
    ImageRow.status == Status.DONE,
    ImageRow.outputs_lease_until.is_not(None),
)
"""Fencing: true only for the holder of the newest attempt. Parameters: image, held (the attempt)."""

_CLAIM: Final = Prepared(
    update(ImageRow)
    .where(
        _THIS_IMAGE,
        ImageRow.status == Status.DONE,
        ImageRow.outputs_due_at.is_not(None),
        or_(ImageRow.outputs_lease_until.is_(None), ImageRow.outputs_lease_until <= now()),
        ImageRow.original_removed_at.is_(None),
    )
    .values(
        attempt=ImageRow.attempt + 1,
        recipe_attempt=ImageRow.attempt + 1,
        outputs_attempts=ImageRow.outputs_attempts + 1,
        outputs_lease_until=in_seconds(bindparam("lease")),
        outputs_due_at=in_seconds(bindparam("lease")),
    )
    .returning(ImageRow.attempt, ImageRow.outputs_attempts, ImageRow.sha256, ImageRow.recipe_name)
)
"""Claim the outputs that a DONE image lacks, under a new attempt. Parameters: image, lease."""

_NOTHING_LACKS: Final = NO_LATE_OUTPUTS | HAS_EVENT

_LACKING: Final = select(ImageRow.id, ImageRow.outputs_due_at, ImageRow.publishes).order_by(ImageRow.outputs_due_at)
"""The columns of a ``LackingImage``, the longest due first."""

_EXTEND: Final[Update] = (
    update(ImageRow)
    .where(*_HELD)
    .values(outputs_lease_until=in_seconds(bindparam("lease")), outputs_due_at=in_seconds(bindparam("lease")))
)
"""Parameters: those of ``_HELD``, and lease."""


class OutputStatements(Repository):
    """Queries on outputs that DONE images lack, each a single statement."""

    async def claim_outputs(self, image_id: UUID, *, lease: float) -> Claim | None:
        """Claim the outputs that an image lacks. None: it lacks none, or another worker makes them.

        There is one count of attempts: one whose worker died also counts as a failure of the decoder.
        """
        rows = await _CLAIM.rows(self._connection, {"image": image_id, "lease": lease})
        if not rows:
            return None
        (row,) = rows
        return Claim(
            image_id=image_id,
            attempt=row.attempt,
            attempts_charged=row.outputs_attempts,
            decoder_failures=row.outputs_attempts - 1,
            sha256=row.sha256,
            recipe_name=row.recipe_name,
            reprocessing=True,
        )

    async def extend_outputs(self, claim: Claim, *, lease: float) -> bool:
        """Extend a claim's lease. False: the claim is lost."""
        return await self._changed(_EXTEND, {**_held(claim), "lease": lease})

    async def release_outputs(self, claim: Claim, *, rest: float, due_in: float, charge: bool) -> bool:
        """Give up a claim without a result. False: the claim is lost, and nothing was changed.

        Args:
            claim: The caller's claim.
            rest: Seconds before the outputs may be claimed again.
            due_in: Seconds after which the reconciler queues them again.
            charge: Whether the attempt counts.
        """
        statement = (
            update(ImageRow)
            .where(*_HELD)
            .values(
                outputs_lease_until=in_seconds(rest),
                outputs_due_at=in_seconds(due_in),
                # From the claim rather than from the row, so that a second call changes nothing more.
                outputs_attempts=claim.attempts_charged - (0 if charge else 1),
            )
        )
        return await self._changed(statement, _held(claim))

    async def mark_outputs_due(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Have the outputs of DONE images compared with their recipes; returns the images that this changed."""
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                in_state(Status.DONE),
                ImageRow.outputs_due_at.is_(None),
                ImageRow.original_removed_at.is_(None),
            )
            .values(outputs_due_at=now(), outputs_lease_until=None, outputs_attempts=0, publishes=0)
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def outputs_waiting(self, *, limit: int, until: UUID | None = None) -> int:
        """The number of images that lack outputs, counted up to a limit; only up to the image ``until``, if given."""
        conditions = [ImageRow.outputs_due_at.is_not(None)] + ([] if until is None else [ImageRow.id <= until])
        counted = select(ImageRow.id).where(*conditions).limit(limit).subquery()
        return (await self._connection.execute(select(func.count()).select_from(counted))).scalar_one()

    async def outputs_due(self, *, limit: int) -> Sequence[LackingImage]:
        """Images whose lacking outputs are due, the longest due first."""
        return await self._lacking(_LACKING.where(ImageRow.outputs_due_at <= now()).limit(limit))

    async def outputs_unclaimed(self, *, queued_before: float, limit: int) -> Sequence[LackingImage]:
        """Images whose outputs were queued more than ``queued_before`` seconds ago, and claimed by no worker since."""
        waiting = _LACKING.where(
            ImageRow.outputs_due_at > now(),
            ImageRow.outputs_lease_until.is_(None),
            ImageRow.queued_at <= in_seconds(-queued_before),
        )
        return await self._lacking(waiting.limit(limit))

    async def _lacking(self, statement: Select[UUID, datetime | None, int]) -> Sequence[LackingImage]:
        rows = (await self._connection.execute(statement)).all()
        return [LackingImage(id=row.id, due_at=row.outputs_due_at, publishes=row.publishes) for row in rows]

    async def reserve_outputs(self, image: LackingImage, *, due_in: float) -> bool:
        """Postpone lacking outputs, unless they have changed since they were read; returns whether to publish them.

        Outputs that cannot be made, because the original is removed or the image is rendered as a whole, are forgotten.
        The version before leaves such rows.

        Args:
            image: The image as it was read.
            due_in: Seconds until they are due again.
        """
        possible = and_(in_state(Status.DONE), ImageRow.original_removed_at.is_(None))
        statement = (
            update(ImageRow)
            .where(ImageRow.id == image.id, ImageRow.outputs_due_at == image.due_at)
            .values(
                outputs_due_at=case((possible, in_seconds(due_in))),
                # An expired lease is cleared, so that the next message can claim the outputs.
                outputs_lease_until=None,
                pending=case((possible, ImageRow.pending), else_=null()),
                publishes=ImageRow.publishes + 1,
                queued_at=now(),
            )
            .returning(ImageRow.outputs_due_at)
        )
        postponed = (await self._connection.execute(statement)).scalar_one_or_none()
        return postponed is not None

    async def resume_outputs(self) -> int:
        """End every claim on outputs, and make all that are lacking due now; returns how many images those are.

        Only for a process that knows it is the only one: standalone mode, at its start.
        """
        statement = (
            update(ImageRow)
            .where(ImageRow.outputs_due_at > now())
            .values(outputs_due_at=now(), outputs_lease_until=None)
        )
        return (await self._connection.execute(statement)).rowcount


class OutputRepository(OutputStatements):
    """All queries on outputs that DONE images lack."""

    async def complete_outputs(self, claim: Claim, result: LateResult, *, superseded_for: float) -> bool:
        """Record the outputs that an image lacked; the files of those that they replace are recorded for removal.

        Args:
            claim: The caller's claim.
            result: What changes.
            superseded_for: Seconds for which a reader may still be on the way to a replaced file.

        Returns:
            False if the claim is lost; then nothing was changed.
        """
        # The UPDATE comes first: it locks the row, so that no other attempt can get between the statements.
        statement = (
            update(ImageRow)
            .where(*_HELD)
            .values(**_NOTHING_LACKS, recipe=result.recipe, left_out=dict(result.left_out) or null(), updated_at=now())
        )
        if not await self._changed(statement, _held(claim)):
            return False
        if result.removed:
            await remove_thumbnails(self._connection, [claim.image_id], due_in=superseded_for, only=result.removed)
        await insert_thumbnails(self._connection, claim.image_id, result.made)
        for output, fingerprint in result.known.items():
            await self._connection.execute(
                update(ThumbnailRow)
                .where(ThumbnailRow.image_id == claim.image_id, ThumbnailRow.output == output)
                .values(fingerprint=fingerprint)
            )
        await record_events(self._connection, EventType.OUTPUT, [claim.image_id])
        return True


def _held(claim: Claim) -> dict[str, Any]:
    """The parameters of ``_HELD``."""
    return {"image": claim.image_id, "held": claim.attempt}
