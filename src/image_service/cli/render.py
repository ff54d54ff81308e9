"""The command ``render``: makes the thumbnails of one file, without the service."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from image_service.cli.app import FAILED, app, exit_with_error, report_errors
from image_service.cli.recipes import RecipesFile, find_recipe
from image_service.config import Settings, load_settings
from image_service.domain.image import ImageFormat, Rendering
from image_service.domain.recipe import DEFAULT_NAME, Recipe
from image_service.errors import DecoderOutOfMemory, ServiceError, StorageUnavailable


@app.command()
def render(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option(help="Folder for the thumbnails, created if missing.")] = Path("thumbnails"),
    recipe: Annotated[str, typer.Option(help="Name of the recipe to use.")] = DEFAULT_NAME,
    recipes_file: RecipesFile = None,
) -> None:
    """Make the thumbnails of one file, without the service.

    Prints the thumbnails and the time that each step took. For trusted files only: they are decoded in this process,
    without a sandbox. Uses the settings MAX_PIXELS, ENABLED_FORMATS, RENDER_TRUNCATED and RECIPES_FILE.
    """
    with report_errors():
        settings = load_settings(recipes_file=recipes_file)
    found = find_recipe(settings.recipes, recipe)
    try:
        rendering = _render(settings, found, photo, out)
    except ServiceError as error:
        exit_with_error(f"{error.code}: {error.detail}", FAILED)
    except MemoryError:
        exit_with_error(f"{DecoderOutOfMemory.code}: {DecoderOutOfMemory.__doc__}", FAILED)
    except OSError as error:
        exit_with_error(f"{StorageUnavailable.code}: {error.filename or photo}: {error.strerror or error}.", FAILED)
    _report(photo, rendering)


def _render(settings: Settings, recipe: Recipe, photo: Path, out: Path) -> Rendering:
    """Render the thumbnails, as files named like the photo and the output."""
    # Imported here: other commands do not need the codecs.
    from image_service.imaging.limits import RenderLimits  # noqa: PLC0415
    from image_service.imaging.render.pipeline import render  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    # Files of the same name are replaced only by complete ones.
    with TemporaryDirectory(dir=out, prefix=".render-") as scratch:
        limits = RenderLimits(
            max_pixels=settings.max_pixels,
            formats=tuple(map(ImageFormat, settings.enabled_formats)),
            truncated=settings.render_truncated,
        )
        rendering = render(photo, recipe, Path(scratch), limits)
        places = [
            made.path.replace(out / f"{photo.stem}-{_stem(made.output)}.{ImageFormat.of(made.content_type).extension}")
            for made in rendering.thumbnails
        ]
    thumbnails = (replace(made, path=path) for made, path in zip(rendering.thumbnails, places, strict=True))
    return replace(rendering, thumbnails=tuple(thumbnails))


def _stem(output: str) -> str:
    """Returns the name of an output without the extension that those of other than the default format have."""
    return output.partition(".")[0]


def _report(photo: Path, rendering: Rendering) -> None:
    typer.echo(f"{photo}: {rendering.width}x{rendering.height}\n")
    longest = max([10, *(len(made.output) for made in rendering.thumbnails)])
    for made in rendering.thumbnails:
        size = f"{made.width}x{made.height}"
        typer.echo(
            f"  {made.output:{longest}} {size:10} {made.size_bytes:>9,} bytes  {made.content_type:11} {made.path}"
        )
    if rendering.left_out:
        typer.echo(f"  not worth a file: {', '.join(rendering.left_out)}")
    traits = rendering.traits
    removed = ", ".join(traits.metadata_removed) or "nothing"
    typer.echo(f"\n  placeholder {traits.placeholder}, dominant colour {traits.dominant_colour or 'none'}")
    typer.echo(f"  metadata removed: {removed}\n")
    for step, seconds in (*rendering.timings, ("all", sum(seconds for _, seconds in rendering.timings))):
        typer.echo(f"  {step:20} {seconds * 1000:8.2f} ms")
