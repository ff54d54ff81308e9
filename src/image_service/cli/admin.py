"""The commands for operators: check, requeue, backfill and dead letters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from image_service.cli.app import app, report_errors
from image_service.config import Settings, load_settings, standalone_settings

FINDINGS_LEFT: Final = 3
"""The exit status of a check with findings that were not repaired."""

Data = Annotated[
    Path | None,
    typer.Option(
        help="The folder of a standalone service. Without it, the settings are used, such as DATABASE_URL.",
        exists=True,
        file_okay=False,
    ),
]

dead_letters = typer.Typer(
    name="dead-letters",
    help="List and retry dead letters.\n\nThey are messages that RabbitMQ stopped delivering. No image is lost.",
    no_args_is_help=True,
)
app.add_typer(dead_letters)


@app.command()
def check(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be repaired. Without it nothing is changed.")
    ] = False,
    delete_newer: Annotated[
        bool,
        typer.Option("--delete-newer", help="With --repair, also delete files newer than every image in the database."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Check that files exist, but do not read them.")] = False,
    data: Data = None,
) -> None:
    """Compare database, storage and queue.

    Lists missing files, files whose content has changed, files that belong to no image, and images that no worker
    processes. Safe beside a running service. Exits with 0 if nothing is wrong or everything was repaired, with 3 if
    findings are left, and with 1 if the check could not complete.
    """
    from image_service.admin.operations import run_check  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        left = run_check(settings, repair=repair, delete_newer=delete_newer, contents=not quick, say=typer.echo)
    if left:
        raise typer.Exit(FINDINGS_LEFT)


@app.command()
def requeue(
    images: Annotated[
        list[UUID] | None, typer.Argument(help="Ids of images, in any state.", show_default=False)
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All images in ERROR.")] = False,
    code: Annotated[
        str | None, typer.Option(help="Only images in ERROR with this code, such as decoder-timeout.")
    ] = None,
    data: Data = None,
) -> None:
    """Queue images for (re)processing.

    An unfinished image is queued again within seconds. A finished image is rendered again, with as many attempts as a
    new one, and keeps its thumbnails until the new ones are complete.
    """
    from image_service.admin.operations import run_requeue  # noqa: PLC0415 — see __init__

    if bool(images) == (failed or code is not None):
        raise typer.BadParameter("Give image ids, or --failed, or --code CODE for failed images with this code.")
    with admin_settings(data) as settings:
        run_requeue(settings, images=images, code=code, say=typer.echo)


@app.command()
def backfill(
    window: Annotated[int, typer.Option(min=1, help="Maximum number of images that wait for it at a time.")] = 500,
    data: Data = None,
) -> None:
    """Render outputs again that were made with another version of their recipe.

    Only what has changed is made. Uses the backfill lane, which workers serve when they have nothing else to do.
    Existing thumbnails are served until the new ones are complete. Stop it with Ctrl-C at any time: the next run
    continues.
    """
    from image_service.admin.operations import run_backfill  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_backfill(settings, window=window, say=typer.echo)


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 100,
) -> None:
    """List dead letters, oldest first, each with its reason and the state of its image."""
    from image_service.admin.operations import run_list_dead_letters  # noqa: PLC0415 — see __init__

    with admin_settings(None) as settings:
        run_list_dead_letters(settings, limit=limit, say=typer.echo)


@dead_letters.command("retry")
def retry_dead_letters(
    *,
    discard: Annotated[
        bool, typer.Option("--discard-unreadable", help="Also delete dead letters that name no image.")
    ] = False,
) -> None:
    """Queue every dead letter that names an image again, in its original lane."""
    from image_service.admin.operations import run_retry_dead_letters  # noqa: PLC0415 — see __init__

    with admin_settings(None) as settings:
        run_retry_dead_letters(settings, discard=discard, say=typer.echo)


@contextmanager
def admin_settings(data: Path | None) -> Iterator[Settings]:
    """Gives the settings, and ends the program with one sentence where one is wrong or the command fails."""
    with report_errors():
        yield load_settings() if data is None else standalone_settings(data)
