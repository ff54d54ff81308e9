"""The commands that run the service's processes, migrate the database, and check health."""

import sys
from enum import StrEnum
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Final
from urllib.request import ProxyHandler, build_opener

import typer

from image_service.cli.app import FAILED, app, report_errors
from image_service.config import formats, load_settings, settings_without_recipes, standalone_settings
from image_service.config.decoders import Formats
from image_service.worker.liveness import is_fresh

_HEALTH_TIMEOUT: Final = 4.0
"""Seconds."""


class Part(StrEnum):
    """A process whose health can be checked."""

    API = "api"
    WORKER = "worker"


@app.command()
def standalone(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (default: 8000).")] = None,
    data: Annotated[Path, typer.Option(help="Folder for images, thumbnails and database.")] = Path("data"),
) -> None:
    """Run the whole service in one process, without other servers.

    API, worker and reconciler, on SQLite and a folder. Stop it with Ctrl-C: unfinished images are resumed at the next
    start. Settings such as MAX_FILE_SIZE apply here too.
    """
    from image_service.program.standalone import run_standalone  # noqa: PLC0415 — see __init__

    with report_errors():
        settings = standalone_settings(data, api_host=host, api_port=port)
        run_standalone(settings, data, partial(_announce, formats(settings.enabled_formats)))


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: API_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (default: API_PORT).")] = None,
    *,
    migrate: Annotated[bool, typer.Option("--migrate", help="Migrate the database first.")] = False,
) -> None:
    """Serve the HTTP API.

    Needs the database (DATABASE_URL), and the folder STORAGE_PATH or the object storage STORAGE_URL. While the broker
    (RABBITMQ_URL) is unavailable, uploads are stored, and queued later.
    """
    from image_service.program.api import run_api  # noqa: PLC0415 — see __init__

    with report_errors():
        run_api(load_settings(api_host=host, api_port=port), migrate=migrate)


@app.command()
def worker() -> None:
    """Process queued images until stopped.

    Any number of workers can run, on any number of machines that share STORAGE_PATH or STORAGE_URL. On SIGTERM a worker
    completes the images in progress, then ends.
    """
    from image_service.program.worker import run_worker  # noqa: PLC0415 — see __init__

    with report_errors():
        run_worker(load_settings())


@app.command()
def migrate(
    lock_timeout: Annotated[int, typer.Option(min=1, help="Seconds to wait for a lock of another session.")] = 60,
) -> None:
    """Migrate the database: bring its tables up to date.

    Safe to repeat, and to run in several places at the same time.
    """
    from image_service.observability.logging import configure_logging  # noqa: PLC0415 — see __init__
    from image_service.program.migrations import run_migrations  # noqa: PLC0415 — see __init__

    with report_errors():
        settings = settings_without_recipes()
        configure_logging("WARNING", settings.log_format, sys.stderr)
        run_migrations(settings, lock_timeout=lock_timeout)
        typer.echo("The database's tables are up to date.")


@app.command()
def healthcheck(part: Annotated[Part, typer.Argument(help="Which process on this machine.")]) -> None:
    """Check whether the API or the worker is healthy.

    For health checks of containers. Exits with 0 if the process is healthy, with 1 if not.
    """
    with report_errors():
        # A running process has read its recipes, and is healthy while their file is being edited.
        settings = settings_without_recipes()
    if part is Part.WORKER:
        healthy, reason = is_fresh(settings.liveness_file), f"{settings.liveness_file} was not updated lately"
    else:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.api_host, settings.api_host)  # noqa: S104 — compared, not bound
        url = f"http://{host}:{settings.api_port}/health/ready"
        healthy, reason = _answers(url), f"{url} does not answer 200"
    if not healthy:
        typer.echo(f"unhealthy: {reason}", err=True)
        raise typer.Exit(FAILED)
    typer.echo("healthy")


def _answers(url: str) -> bool:
    no_proxy = ProxyHandler({})  # a proxy named in the environment could not reach this machine's ports
    try:
        with build_opener(no_proxy).open(url, timeout=_HEALTH_TIMEOUT):  # raises on any other status
            return True
    except (OSError, HTTPException):
        return False


def _announce(images: Formats, address: str) -> None:
    others = f"; ENABLED_FORMATS can add {images.available}" if images.available else ""
    missing = f"; not installed: {images.not_installed}" if images.not_installed else ""
    typer.echo(
        f"\n  Image Processing Service on {address}   (documentation: {address}/docs)\n\n"
        "  Upload an image:\n"
        f"    curl -F file=@photo.jpg {address}/images\n\n"
        f"  Formats: {images.enabled}{others}{missing}\n\n"
        "  Stop with Ctrl-C.\n"
    )
