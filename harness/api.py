"""The API as the program builds it, on a database and a folder of the test's own, and requests to it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI

from harness.fakes import LONG_TIMEOUT, TRAITS
from harness.images import encoded, gradient
from image_service.api.dependencies import ApiContext
from image_service.api.main import create_app
from image_service.bootstrap import Resources, api_services
from image_service.bootstrap.outbound import make_outbound
from image_service.config import Settings, load_settings
from image_service.database import Database
from image_service.domain.image import Claim, ImageError, Result, Thumbnail
from image_service.domain.keys import thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE, Recipes
from image_service.errors import QueueUnavailable
from image_service.observability.metrics import Metrics
from image_service.ports import Delivery, PresignedUrls, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.signal import LocalSignal
from image_service.services.backlog import Backlog
from image_service.storage.local import LocalStorage

BASE = "http://api.example:8000"
PNG = encoded(gradient(60, 40), "PNG")
JPEG = encoded(gradient(60, 40), "JPEG")
SIZES = {"100x100": (67, 100), "300x300": (200, 300), "1200x1200": (400, 600)}
UNKNOWN = "01900000-0000-7000-8000-000000000001"
"""An id that no image has."""
FAILURE = ImageError(code="corrupt-image", detail="Export it again.")


@dataclass(frozen=True, kw_only=True)
class Api:
    """An application with its client, settings and resources."""

    app: FastAPI
    client: httpx.AsyncClient
    settings: Settings
    resources: Resources
    stop: asyncio.Event
    """Set it as the process does when it begins to end."""

    @property
    def database(self) -> Database:
        return self.resources.database

    @property
    def slots_in_use(self) -> int:
        """How many upload slots are in use."""
        context: ApiContext = self.app.state.context
        return context.upload_limit.in_use

    @property
    def scratch(self) -> list[Path]:
        """Scratch directories in use, and any other entry beside them."""
        assert isinstance(self.resources.storage, LocalStorage)
        spare = {folder for _, folder in self.resources.storage._scratch._kept}  # noqa: SLF001 (reused directories are no leftovers)
        return [path for path in (self.settings.storage_path / "scratch").glob("*") if path not in spare]

    @property
    def originals(self) -> list[Path]:
        """The files of all originals."""
        return self._files("originals")

    @property
    def thumbnails(self) -> list[Path]:
        """The files of all thumbnails, with or without a row that names them."""
        return self._files("thumbnails")

    async def depth(self) -> int:
        """Returns the number of messages in the queue."""
        return sum((await self.resources.queue.depth()).values())

    def _files(self, prefix: str) -> list[Path]:
        return [path for path in (self.settings.storage_path / prefix).rglob("*") if path.is_file()]


@asynccontextmanager
async def api_on(
    database_url: str,
    folder: Path,
    queue: TaskQueue | None = None,
    *,
    backlog_refresh: float | None = None,
    recipes: Recipes | None = None,
    presigned_urls: PresignedUrls | None = None,
    **settings: object,
) -> AsyncIterator[Api]:
    """Runs the API on an existing database, with its files in ``folder/storage``.

    Args:
        database_url: A migrated database.
        folder: A directory for files.
        queue: A queue instead of the embedded one.
        backlog_refresh: Seconds between two counts of the backlog, instead of the default.
        recipes: Recipes instead of those that the settings name.
        presigned_urls: Where clients are redirected for files.
        settings: Settings that differ from the defaults.
    """
    chosen = load_settings(
        **{
            "database_url": database_url,
            "rabbitmq_url": "embedded://",
            "storage_path": folder / "storage",
            **settings,
        }
    )
    if recipes is not None:
        vars(chosen)["recipes"] = recipes  # as if the file had been read
    resources = Resources(
        database=Database(database_url),
        storage=LocalStorage(chosen.storage_path),
        queue=queue or EmbeddedQueue(),
        signal=LocalSignal(),
        outbound=make_outbound(chosen),
        presigned_urls=presigned_urls,
        metrics=Metrics(),
    )
    await resources.queue.start()
    services = api_services(chosen, resources)
    if backlog_refresh is not None:
        backlog = Backlog(
            database=resources.database,
            limit=chosen.max_backlog,
            refresh_interval=backlog_refresh,
            count_timeout=LONG_TIMEOUT,
        )
        services = replace(services, backlog=backlog)
    stop = asyncio.Event()
    app = create_app(services, chosen, resources.metrics, stop)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50_000))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Api(app=app, client=client, settings=chosen, resources=resources, stop=stop)
    finally:
        await services.feed.close()
        await resources.queue.close()
        await resources.database.close()


class UnavailableQueue(EmbeddedQueue):
    """A queue whose broker cannot be reached."""

    async def publish(self, delivery: Delivery) -> None:
        raise QueueUnavailable(f"Cannot take {delivery.image_id}.")

    async def depth(self) -> Mapping[Lane, int]:
        raise QueueUnavailable


async def upload(
    api: Api,
    content: bytes = PNG,
    name: str = "a.png",
    kind: str = "image/png",
    *,
    key: str | None = None,
    recipe: str | None = None,
) -> httpx.Response:
    """Uploads a file, optionally under an idempotency key and with a recipe in the query; returns the response."""
    headers = {} if key is None else {"Idempotency-Key": key}
    query = {} if recipe is None else {"recipe": recipe}
    return await api.client.post("/images", files={"file": (name, content, kind)}, headers=headers, params=query)


async def accepted(api: Api, content: bytes = PNG, *, key: str | None = None, recipe: str | None = None) -> str:
    """Uploads a file that must be accepted; returns the image's id."""
    answer = await upload(api, content, key=key, recipe=recipe)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def status_of(api: Api, image_id: str) -> dict[str, Any]:
    """Returns the status of an existing image."""
    answer = await api.client.get(f"/images/{image_id}")
    assert answer.status_code == 200, answer.text
    status: dict[str, Any] = answer.json()
    return status


async def claimed(api: Api, image_id: str) -> Claim:
    """Claims an image, as a worker does."""
    async with api.database.transaction() as repositories:
        claim = await repositories.claims.claim(UUID(image_id), lease=60)
    assert claim is not None
    return claim


async def complete(api: Api, claim: Claim, quality: int = 75) -> dict[str, bytes]:
    """Makes a claimed image DONE; returns the thumbnails' bytes, which depend on the quality."""
    contents = {name: encoded(gradient(*size), "JPEG", quality=quality) for name, size in SIZES.items()}
    keys = {name: thumbnail_key(claim.image_id, claim.attempt, name) for name in contents}
    async with api.resources.storage.scratch() as scratch:
        for name, content in contents.items():
            (scratch / name).write_bytes(content)
        await api.resources.storage.adopt({keys[name]: scratch / name for name in contents})
    thumbnails = tuple(
        Thumbnail(
            output=name,
            key=keys[name],
            content_type="image/jpeg",
            width=SIZES[name][0],
            height=SIZES[name][1],
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for name, content in contents.items()
    )
    result = Result(width=40, height=60, thumbnails=thumbnails, traits=TRAITS, recipe=DEFAULT_RECIPE.fingerprint)
    async with api.database.transaction() as repositories:
        assert await repositories.claims.complete(claim, result, superseded_for=60)
    return contents


async def finish(api: Api, image_id: str, quality: int = 75) -> dict[str, bytes]:
    """Claims an image and makes it DONE; returns the thumbnails' bytes."""
    return await complete(api, await claimed(api, image_id), quality)


async def fail(api: Api, image_id: str) -> None:
    """Claims an image and makes it end in ERROR."""
    claim = await claimed(api, image_id)
    async with api.database.transaction() as repositories:
        assert await repositories.claims.fail(claim, FAILURE)


async def remove_original(api: Api, image_id: str) -> None:
    """Marks an original as removed, as retention does."""
    async with api.database.transaction() as repositories:
        assert await repositories.images.remove_originals([UUID(image_id)])


def is_recent(text: str) -> bool:
    """Whether a timestamp of the API is in UTC and at most a minute old."""
    assert text.endswith("Z")
    return abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(minutes=1)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Asserts that a response is a problem document; returns it."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(document) == {"type", "title", "status", "detail", "code"}
    assert answer.headers["x-request-id"]
    return document
