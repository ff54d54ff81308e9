"""The work on an unfinished image: its required outputs are made, and it becomes DONE or ends in ERROR."""

from image_service.domain.image import ImageError, Result
from image_service.domain.lane import lane_after_decoder_failure
from image_service.domain.recipe import Recipe
from image_service.errors import ServiceError
from image_service.ports import AttemptOutcome, Renderer
from image_service.services.attempts import Release
from image_service.services.rendering import SUPERSEDED_FOR, RenderingWork


class NewImage(RenderingWork):
    """Makes the required outputs. Optional ones are recorded as pending, and follow in the backfill lane."""

    done = "image done"
    failed = "image ended in ERROR"
    failure = AttemptOutcome.ERROR

    async def attempt(self, renderer: Renderer) -> bool:
        """Make the outputs; see ``Work``."""
        recipe = self._recipe
        required = recipe.required
        pending = tuple(each.name for each in recipe.outputs if each.optional)
        rendering, thumbnails = await self._render(renderer, Recipe.of(required) if pending else recipe)
        result = Result(
            width=rendering.width,
            height=rendering.height,
            thumbnails=thumbnails,
            traits=rendering.traits,
            recipe=None if pending else recipe.fingerprint,
            pending=pending,
            left_out={each.name: each.fingerprint for each in required if each.name in rendering.left_out},
        )
        return await self._record(lambda: self._complete(result), thumbnails)

    async def _complete(self, result: Result) -> bool:
        """Record the result: in one statement, or in a transaction that also replaces the thumbnails there were."""
        if not self.claim.reprocessing:
            async with self._database.statement() as repositories:
                return await repositories.claims.complete(self.claim, result)
        async with self._database.transaction() as repositories:
            return await repositories.claims.complete(self.claim, result, superseded_for=SUPERSEDED_FOR)

    async def extend(self) -> bool:
        """Extend the lease; see ``Work``."""
        async with self._database.statement() as repositories:
            return await repositories.claims.extend(self.claim, lease=self._policy.lease)

    async def fail(self, error: ServiceError) -> bool:
        """Record that the image ended in ERROR; see ``Work``."""
        async with self._database.statement() as repositories:
            failed = await repositories.claims.fail(self.claim, ImageError(code=error.code, detail=error.detail))
        self._signal.notify()
        return failed

    async def release(self, release: Release) -> bool:
        """Give up the claim; see ``Work``."""
        lane = release.decoder_failed_in
        async with self._database.statement() as repositories:
            return await repositories.claims.release(
                self.claim,
                rest=release.rest,
                due_in=release.due_in,
                charge=release.charge,
                decoder_failed=lane is not None,
                lane=None if lane is None else lane_after_decoder_failure(lane),
            )
