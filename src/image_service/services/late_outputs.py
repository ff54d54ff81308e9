"""The work on outputs that a DONE image lacks: optional ones, and those of a recipe that has changed.

Only these are made. The image stays DONE, and what it has is served until it is replaced.
"""

from collections.abc import Mapping

from image_service.domain.image import Image, LateResult, RenderedThumbnail, Thumbnail
from image_service.domain.lacking import File, lacking, superfluous
from image_service.domain.recipe import Recipe, made_with
from image_service.domain.status import Status
from image_service.errors import ServiceError
from image_service.ports import AttemptOutcome, Renderer
from image_service.services.attempts import Release
from image_service.services.rendering import SUPERSEDED_FOR, RenderingWork


class LateOutputs(RenderingWork):
    """Makes outputs that are missing, or that were made with another version of the recipe."""

    done = "late outputs done"
    failed = "late outputs left out"
    failure = AttemptOutcome.LEFT_OUT

    async def attempt(self, renderer: Renderer) -> bool:
        """Make the outputs; see ``Work``."""
        image = await self._image()
        if image is None:
            return False
        wanted = {each.name for each in lacking(self._recipe, image)}
        names = {each.name for each in self._recipe.outputs}
        kept = {each.output: each for each in image.thumbnails if each.output in names - wanted}
        useless: set[str] = set()
        made: tuple[Thumbnail, ...] = ()
        if wanted:
            # Each is judged beside those that stay, as if all had been made at once.
            def unwanted(rendered: Mapping[str, RenderedThumbnail]) -> set[str]:
                files: dict[str, File] = {**kept, **rendered}
                useless.update(superfluous(self._recipe.outputs, files))
                return useless

            recipe = Recipe.of(each for each in self._recipe.outputs if each.name in wanted)
            _, made = await self._render(renderer, recipe, unwanted)
        stay = {name: each for name, each in kept.items() if name not in useless}
        there = stay.keys() | {each.output for each in made}
        result = LateResult(
            recipe=self._recipe.fingerprint,
            left_out={each.name: each.fingerprint for each in self._recipe.outputs if each.name not in there},
            made=made,
            removed=tuple(each.output for each in image.thumbnails if each.output not in stay),
            known=_known(image, stay),
        )
        return await self._record(lambda: self._complete(result), made)

    async def fail(self, error: ServiceError) -> bool:  # noqa: ARG002 — the log tells it; the image is DONE
        """Leave out what cannot be made: the image keeps what it has; see ``Work``."""
        image = await self._image()
        if image is None:
            return False
        stay = {each.output: each for each in image.thumbnails}
        wanted = {each.name for each in lacking(self._recipe, image)}
        result = LateResult(
            recipe=self._recipe.fingerprint,
            left_out={
                each.name: each.fingerprint
                for each in self._recipe.outputs
                if each.name in wanted or each.name not in stay
            },
            known=_known(image, stay),
        )
        return await self._complete(result)

    async def extend(self) -> bool:
        """Extend the lease; see ``Work``."""
        async with self._database.statement() as repositories:
            return await repositories.outputs.extend_outputs(self.claim, lease=self._policy.lease)

    async def release(self, release: Release) -> bool:
        """Give up the claim; see ``Work``."""
        async with self._database.statement() as repositories:
            return await repositories.outputs.release_outputs(
                self.claim, rest=release.rest, due_in=release.due_in, charge=release.charge
            )

    async def _image(self) -> Image | None:
        """Returns the image, unless it was deleted or is rendered as a whole since the claim."""
        async with self._database.statement() as repositories:
            image = await repositories.images.get(self.claim.image_id)
        return image if image is not None and image.status is Status.DONE else None

    async def _complete(self, result: LateResult) -> bool:
        async with self._database.transaction() as repositories:
            done = await repositories.outputs.complete_outputs(self.claim, result, superseded_for=SUPERSEDED_FOR)
        self._signal.notify()
        return done


def _known(image: Image, thumbnails: Mapping[str, Thumbnail]) -> dict[str, str]:
    """Returns the fingerprints of thumbnails that have none: they follow from the image's, which is about to change."""
    found = {name: made_with(image.recipe, name, None) for name, each in thumbnails.items() if each.fingerprint is None}
    return {name: fingerprint for name, fingerprint in found.items() if fingerprint is not None}
