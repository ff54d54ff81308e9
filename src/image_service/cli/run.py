"""The commands that start processes, and the one that asks how they are."""

from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Final
from urllib.request import ProxyHandler, build_opener

import typer

from image_service.cli.app import FAILED, app, explained
from image_service.config import load_settings, standalone_settings
from image_service.worker.liveness import is_fresh

_HEALTH_LIMIT: Final = 4.0


class Part(StrEnum):
    """What can be asked for its health."""

    API = "api"
    WORKER = "worker"


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

    with explained():
        run_standalone(standalone_settings(data, api_host=host, api_port=port), data, _announce)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: API_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (default: API_PORT).")] = None,
    *,
    migrate: Annotated[bool, typer.Option("--migrate", help="First bring the database's tables up to date.")] = False,
) -> None:
    """Serve the HTTP API.

    Needs the database (DATABASE_URL) and the folder STORAGE_PATH, or the storage STORAGE_URL. While the broker
    (RABBITMQ_URL) is away, uploads are kept, and queued later.
    """
    from image_service.program import run_api  # noqa: PLC0415 — see above

    with explained():
        run_api(load_settings(api_host=host, api_port=port), migrate=migrate)


@app.command()
def worker() -> None:
    """Make thumbnails: take images off the queue until told to stop.

    Run as many as you like, on any number of machines that share STORAGE_PATH or STORAGE_URL. SIGTERM lets each finish
    what it holds.
    """
    from image_service.program import run_worker  # noqa: PLC0415 — see above

    with explained():
        run_worker(load_settings())


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date.

    Safe to repeat, and to run in several places at once.
    """
    from image_service.program import run_migrations  # noqa: PLC0415 — see above

    with explained():
        run_migrations(load_settings())
        typer.echo("The database's tables are up to date.")


@app.command()
def healthcheck(part: Annotated[Part, typer.Argument(help="Which process on this machine.")]) -> None:
    """Exit with 0 if the API, or the worker, can do its job; for containers."""
    with explained():
        settings = load_settings()
    if part is Part.WORKER:
        healthy, complaint = is_fresh(settings.liveness_file), f"no sign of life in {settings.liveness_file}"
    else:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.api_host, settings.api_host)  # noqa: S104 — compared, not listened on
        url = f"http://{host}:{settings.api_port}/health/ready"
        healthy, complaint = _answers(url), f"{url} does not answer 200"
    if not healthy:
        typer.echo(f"unhealthy: {complaint}", err=True)
        raise typer.Exit(FAILED)
    typer.echo("healthy")


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
