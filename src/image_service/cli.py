"""The command line: what the program can be asked to do.

The program itself is imported by the commands that run it: a health check, made every few seconds, loads none of it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, NoReturn
from urllib.request import ProxyHandler, build_opener

import typer

from image_service import __version__
from image_service.config import ConfigError, Settings, load_settings, standalone_settings
from image_service.domain.image import ImageFormat, Rendering
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import DecoderOutOfMemory, ServiceError, StorageUnavailable
from image_service.worker.alive import is_fresh

_BAD_SETTING: Final = 2
_HEALTH_LIMIT: Final = 4.0

app = typer.Typer(
    name="image-service",
    help="Accepts images over HTTP, keeps them safe, and turns each into thumbnails.",
    epilog="Settings are environment variables; .env.example lists them all, with their defaults.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Part(StrEnum):
    """What can be asked for its health."""

    API = "api"
    WORKER = "worker"


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
    """Accepts images over HTTP, keeps them safe, and turns each into thumbnails."""


@app.command()
def standalone(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (default: 8000).")] = None,
    data: Annotated[Path, typer.Option(help="Folder that keeps images, thumbnails and database.")] = Path("data"),
) -> None:
    """Run the whole service in one process, with no other server.

    API, worker and reconciler, on SQLite and a folder. Stop it with Ctrl-C: what was not finished is resumed at the
    next start. The settings count here too, such as MAX_FILE_SIZE.
    """
    from image_service.program import run_standalone  # noqa: PLC0415 — see above

    with _explained():
        run_standalone(standalone_settings(data, api_host=host, api_port=port), data, _announce)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: API_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (default: API_PORT).")] = None,
    *,
    migrate: Annotated[bool, typer.Option("--migrate", help="First bring the database's tables up to date.")] = False,
) -> None:
    """Serve the HTTP API.

    Needs the database (DATABASE_URL) and the folder STORAGE_PATH. While the broker (RABBITMQ_URL) is away, uploads are
    kept, and queued later.
    """
    from image_service.program import run_api  # noqa: PLC0415 — see above

    with _explained():
        run_api(load_settings(api_host=host, api_port=port), migrate=migrate)


@app.command()
def worker() -> None:
    """Make thumbnails: take images off the queue until told to stop.

    Run as many as you like, on any number of machines that share STORAGE_PATH. SIGTERM lets each finish what it holds.
    """
    from image_service.program import run_worker  # noqa: PLC0415 — see above

    with _explained():
        run_worker(load_settings())


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date.

    Safe to repeat, and to run in several places at once.
    """
    from image_service.program import run_migrations  # noqa: PLC0415 — see above

    with _explained():
        run_migrations(load_settings())
        typer.echo("The database's tables are up to date.")


@app.command()
def render(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option(help="Folder for the thumbnails, made if missing.")] = Path("thumbnails"),
) -> None:
    """Make the thumbnails of one file, here and now.

    Prints what was made and what each step took. Needs no service, but for files that you trust: they are decoded in
    this process. Of the settings MAX_PIXELS, ENABLED_FORMATS and RENDER_TRUNCATED count.
    """
    with _explained():
        settings = load_settings()
    try:
        rendering = _render(settings, photo, out)
    except ServiceError as error:
        _give_up(f"{error.code}: {error.detail}", 1)
    except MemoryError:
        _give_up(f"{DecoderOutOfMemory.code}: {DecoderOutOfMemory.__doc__}", 1)
    except OSError as error:
        _give_up(f"{StorageUnavailable.code}: {error.filename or photo}: {error.strerror or error}.", 1)
    _report(photo, rendering)


@app.command()
def healthcheck(part: Annotated[Part, typer.Argument(help="Which process on this machine.")]) -> None:
    """Exit with 0 if the API, or the worker, can do its job; for containers."""
    with _explained():
        settings = load_settings()
    if part is Part.WORKER:
        healthy, complaint = is_fresh(settings.alive_file), f"no sign of life in {settings.alive_file}"
    else:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.api_host, settings.api_host)  # noqa: S104 — compared, not listened on
        url = f"http://{host}:{settings.api_port}/health/ready"
        healthy, complaint = _answers(url), f"{url} does not answer 200"
    if not healthy:
        typer.echo(f"unhealthy: {complaint}", err=True)
        raise typer.Exit(1)
    typer.echo("healthy")


def main() -> None:
    """Run the program."""
    app()


@contextmanager
def _explained() -> Iterator[None]:
    """Ends the program with one clear sentence where it cannot do what it was asked."""
    try:
        yield
    except ConfigError as error:
        _give_up(str(error), _BAD_SETTING)
    except ServiceError as error:
        _give_up(str(error), 1)


def _render(settings: Settings, photo: Path, out: Path) -> Rendering:
    """The thumbnails, as files named like the photo and the preset."""
    # The codecs are loaded where they are needed.
    from image_service.imaging import render  # noqa: PLC0415
    from image_service.imaging.limits import RenderLimits  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    # Nothing half-made, and nothing of the same name that lies there already, comes to harm.
    with TemporaryDirectory(dir=out, prefix=".render-") as scratch:
        limits = RenderLimits(
            max_pixels=settings.max_pixels,
            formats=tuple(map(ImageFormat, settings.enabled_formats)),
            truncated=settings.render_truncated,
        )
        rendering = render(photo, DEFAULT_RECIPE, Path(scratch), limits)
        places = [
            made.path.replace(out / f"{photo.stem}-{made.preset}.{ImageFormat.of(made.content_type).extension}")
            for made in rendering.thumbnails
        ]
    thumbnails = (replace(made, path=path) for made, path in zip(rendering.thumbnails, places, strict=True))
    return replace(rendering, thumbnails=tuple(thumbnails))


def _report(photo: Path, rendering: Rendering) -> None:
    typer.echo(f"{photo}: {rendering.width}x{rendering.height}\n")
    for made in rendering.thumbnails:
        size = f"{made.width}x{made.height}"
        typer.echo(f"  {made.preset:10} {size:10} {made.size_bytes:>9,} bytes  {made.content_type:11} {made.path}")
    findings = rendering.findings
    removed = ", ".join(findings.metadata_removed) or "nothing"
    typer.echo(f"\n  placeholder {findings.placeholder}, dominant colour {findings.dominant_colour or 'none'}")
    typer.echo(f"  metadata removed: {removed}\n")
    for step, seconds in (*rendering.timings, ("all", sum(seconds for _, seconds in rendering.timings))):
        typer.echo(f"  {step:20} {seconds * 1000:8.2f} ms")


def _give_up(reason: str, status: int) -> NoReturn:
    typer.secho(f"image-service: {reason}", err=True, fg=typer.colors.RED)
    sys.exit(status)


def _answers(url: str) -> bool:
    no_proxy = ProxyHandler({})  # one that the environment names could not reach this machine's ports
    try:
        with build_opener(no_proxy).open(url, timeout=_HEALTH_LIMIT):  # raises on other answers
            return True
    except (OSError, HTTPException):
        return False


def _announce(address: str) -> None:
    typer.echo(
        f"\n  Image Processing Service on {address}   (documentation: {address}/docs)\n\n"
        "  Upload an image:\n"
        f"    curl -F file=@photo.jpg {address}/images\n\n"
        "  Stop with Ctrl-C.\n"
    )
