"""The commands that look after what is kept: for operators, and for cron."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from image_service.cli.app import app, explained
from image_service.config import Settings, load_settings, standalone_settings

TROUBLE: Final = 3
"""The exit status of a check that found something it did not mend."""

Data = Annotated[
    Path | None,
    typer.Option(
        help="The folder of a standalone service; without it, DATABASE_URL and the others say where.",
        exists=True,
        file_okay=False,
    ),
]

dead_letters = typer.Typer(
    name="dead-letters",
    help="Look at the messages that the queue has given up on, and send them on again. No image is lost with them.",
    no_args_is_help=True,
)
app.add_typer(dead_letters)


@app.command()
def check(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended. Without it nothing changes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="See that files are there, but do not read them.")] = False,
    data: Data = None,
) -> None:
    """Compare database, storage and queue.

    Lists files that are missing, files whose content has changed, files that belong to no image, and images that nobody
    works on. Safe beside a running service. Exits with 0 if all is well or was mended, with 3 if not, and with 1 if it
    could not be told.
    """
    from image_service.admin import run_check  # noqa: PLC0415 — see __init__

    with _settings(data) as settings:
        left = run_check(settings, repair=repair, contents=not quick, say=typer.echo)
    if left:
        raise typer.Exit(TROUBLE)


@app.command()
def requeue(
    images: Annotated[
        list[UUID] | None, typer.Argument(help="Ids of images, in any state.", show_default=False)
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All images that ended in ERROR.")] = False,
    code: Annotated[str | None, typer.Option(help="Only those with this error code, such as decoder-timeout.")] = None,
    data: Data = None,
) -> None:
    """Have images processed, or processed again.

    An unfinished image is queued anew within seconds; a finished one is rendered again, with as many attempts as a new
    one, and keeps its thumbnails until then.
    """
    from image_service.admin import run_requeue  # noqa: PLC0415 — see __init__

    if bool(images) == (failed or code is not None):
        raise typer.BadParameter("Name images, or say --failed (and --code CODE for some of them).")
    with _settings(data) as settings:
        run_requeue(settings, images=images, code=code, say=typer.echo)


@app.command()
def backfill(
    window: Annotated[int, typer.Option(min=1, help="Images that may wait in the back-fill lane at a time.")] = 500,
    data: Data = None,
) -> None:
    """Render again every image whose thumbnails were made under another recipe.

    In a lane of its own, which workers turn to when they have nothing else to do. Old thumbnails are served until the
    new ones are complete. Stop it with Ctrl-C at any time: the next run goes on.
    """
    from image_service.admin import run_backfill  # noqa: PLC0415 — see __init__

    with _settings(data) as settings:
        run_backfill(settings, window=window, say=typer.echo)


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
) -> None:
    """Tell which messages lie there, the oldest first, why, and what has become of their images."""
    from image_service.admin import run_list_dead_letters  # noqa: PLC0415 — see __init__

    with _settings(None) as settings:
        run_list_dead_letters(settings, limit=limit, say=typer.echo)


@dead_letters.command("retry")
def retry_dead_letters(
    *,
    discard: Annotated[
        bool, typer.Option("--discard-unreadable", help="Also throw away those that name no image.")
    ] = False,
) -> None:
    """Put every message that names an image back into the lane it came from."""
    from image_service.admin import run_retry_dead_letters  # noqa: PLC0415 — see __init__

    with _settings(None) as settings:
        run_retry_dead_letters(settings, discard=discard, say=typer.echo)


@contextmanager
def _settings(data: Path | None) -> Iterator[Settings]:
    with explained():
        yield load_settings() if data is None else standalone_settings(data)
