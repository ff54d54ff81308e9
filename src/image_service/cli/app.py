"""The Typer application: its help, its options, and how errors end it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, NoReturn

import typer

from image_service import __version__
from image_service.config import ConfigError
from image_service.errors import ServiceError

FAILED: Final = 1
BAD_SETTING: Final = 2

app = typer.Typer(
    name="image-service",
    help="Accepts images over HTTP, stores them durably, and makes thumbnails of each.",
    epilog="Settings are environment variables; .env.example lists all of them with their defaults.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 — Typer's signature
    if wanted:
        typer.echo(f"image-service {__version__}")
        raise typer.Exit


@app.callback()
def image_service(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Accepts images over HTTP, stores them durably, and makes thumbnails of each."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Ends the program with one sentence instead of a traceback where a setting is wrong or the service fails."""
    try:
        yield
    except ConfigError as error:
        exit_with_error(str(error), BAD_SETTING)
    except ServiceError as error:
        exit_with_error(str(error), FAILED)


def exit_with_error(reason: str, status: int) -> NoReturn:
    """Prints the reason to standard error and ends the program with the exit status."""
    typer.secho(f"image-service: {reason}", err=True, fg=typer.colors.RED)
    sys.exit(status)
