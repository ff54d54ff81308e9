"""Handles queue messages: claims what is to be done for an image, and makes one attempt at it."""

from collections.abc import Mapping

import structlog

from image_service.database import Database
from image_service.domain.image import Claim
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE, Recipes
from image_service.errors import AttemptsExhausted
from image_service.ports import NULL_OBSERVER, NULL_SIGNAL, Delivery, EventSignal, Observer, Renderer, Storage
from image_service.services.attempts import Attempts, ProcessingPolicy
from image_service.services.late_outputs import LateOutputs
from image_service.services.new_images import NewImage
from image_service.services.rendering import RenderingWork

_log = structlog.get_logger(__name__)


class Processing:
    """Handles queue messages.

    Args:
        database: Where images are recorded.
        storage: Where their files are.
        renderers: What renders the images of each lane.
        recipes: The recipes that this process knows.
        policy: Limits on the attempts of an image.
        observer: Notified of claims and attempts.
        signal: Tells of the events that are recorded.
    """

    def __init__(  # noqa: PLR0913 — collaborators, by keyword
        self,
        *,
        database: Database,
        storage: Storage,
        renderers: Mapping[Lane, Renderer],
        recipes: Recipes,
        policy: ProcessingPolicy,
        observer: Observer = NULL_OBSERVER,
        signal: EventSignal = NULL_SIGNAL,
    ) -> None:
        self._database = database
        self._storage = storage
        self._renderers = renderers
        self._recipes = recipes
        self._policy = policy
        self._observer = observer
        self._signal = signal
        self._attempts = Attempts(storage=storage, policy=policy, observer=observer)

    async def process(self, delivery: Delivery) -> None:
        """Make one attempt on an image. A ``Handler`` of the queue.

        When it returns, the message can be acknowledged, even if the image is unfinished: the reconciler then queues it
        when it is due. Cancelling releases the claim; the attempt does not count.

        Raises:
            Outage: a dependency is unavailable that the next image needs too; or the attempt failed for a reason that
                is not known to be the image.
        """
        facts = {"image_id": str(delivery.image_id), "request_id": delivery.request_id}
        with structlog.contextvars.bound_contextvars(**{key: value for key, value in facts.items() if value}):
            kind: type[RenderingWork] = LateOutputs
            claim = await self._claim_outputs(delivery)
            if claim is None:
                kind, claim = NewImage, await self._claim(delivery)
            self._observer.claimed(delivery.lane, claim)
            if claim is None:
                _log.info("claim skipped: finished, deleted or leased")
            else:
                await self._work(kind, claim, delivery.lane)

    async def _work(self, kind: type[RenderingWork], claim: Claim, lane: Lane) -> None:
        recipe = self._recipes.find(claim.recipe_name)
        work = kind(
            claim,
            recipe or DEFAULT_RECIPE,
            database=self._database,
            storage=self._storage,
            policy=self._policy,
            signal=self._signal,
        )
        if recipe is None:
            await self._attempts.leave(work)
        elif claim.attempts_charged > self._policy.max_attempts:
            await self._attempts.fail(work, AttemptsExhausted())
        else:
            await self._attempts.make(work, self._renderers[lane], lane)

    async def _claim_outputs(self, delivery: Delivery) -> Claim | None:
        """Claim outputs that a DONE image lacks: only messages of the backfill lane are about such."""
        if delivery.lane is not Lane.BACKFILL:
            return None
        async with self._database.statement() as repositories:
            return await repositories.outputs.claim_outputs(delivery.image_id, lease=self._policy.lease)

    async def _claim(self, delivery: Delivery) -> Claim | None:
        async with self._database.statement() as repositories:
            return await repositories.claims.claim(delivery.image_id, lease=self._policy.lease)
