"""Which unexpected errors of an attempt are charged to the image: those that are known to depend on its content."""

from pathlib import Path

from image_service.database.failures import rejects_values
from image_service.domain.image import Rendering
from image_service.domain.recipe import Recipe
from image_service.errors import AttemptsExhausted, ObjectChanged, ObjectMissing, ServiceError
from image_service.ports import Renderer


class RenderingError(Exception):
    """The renderer failed in a way that it should not, and may do so for this image alone."""


async def render(renderer: Renderer, source: Path, recipe: Recipe, out: Path) -> Rendering:
    """Render an image; see ``Renderer.render``.

    Raises:
        RenderingError: what was raised is neither one of the service's errors nor one of this machine.
    """
    try:
        return await renderer.render(source, recipe, out)
    except (ServiceError, OSError, MemoryError):
        raise
    except Exception as error:
        raise RenderingError from error


def fault_of_image(error: Exception) -> ServiceError | None:
    """Returns the error that an image ends in if this one repeats; None if it is not known to be the image's fault."""
    if isinstance(error, ObjectMissing | ObjectChanged):
        return error
    # The values that the database is given after a claim come from the decoder.
    if isinstance(error, RenderingError) or rejects_values(error):
        return AttemptsExhausted()
    return None
