"""The API put together as the program does it, on a database and a folder of the test's own."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI

from harness.fakes import TRAITS
from harness.images import encoded, gradient
from image_service.api.main import create_app
from image_service.bootstrap import Resources, api_services
from image_service.config import Settings, load_settings
from image_service.database import Database
from image_service.domain.image import Claim, ImageError, Result, Thumbnail
from image_service.domain.keys import thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import QueueUnavailable
from image_service.observability.metrics import Metrics
from image_service.ports import Delivery, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
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
    """An application and what it stands on."""

    app: FastAPI
    client: httpx.AsyncClient
    settings: Settings
    resources: Resources

    @property
    def database(self) -> Database:
        return self.resources.database

    @property
    def scratch(self) -> list[Path]:
        """Scratch folders in use, and whatever else is among them."""
        assert isinstance(self.resources.storage, LocalStorage)
        spare = {folder for _, folder in self.resources.storage._spare}  # noqa: SLF001 (reused directories are no leftovers)
        return [path for path in (self.settings.storage_path / "scratch").glob("*") if path not in spare]

    @property
    def originals(self) -> list[Path]:
        """The files of all originals."""
        return self._files("originals")

    @property
    def thumbnails(self) -> list[Path]:
        """The files of all thumbnails, whether a row names them or not."""
        return self._files("thumbnails")

    async def depth(self) -> int:
        """How many messages wait in the queue."""
        return sum((await self.resources.queue.depth()).values())

    def _files(self, prefix: str) -> list[Path]:
        return [path for path in (self.settings.storage_path / prefix).rglob("*") if path.is_file()]


@asynccontextmanager
async def api_on(
    database_url: str, folder: Path, queue: TaskQueue | None = None, **settings: object
) -> AsyncIterator[Api]:
    """The API on a database that is there, with its files in ``folder/storage``, and the embedded queue or another."""
    chosen = load_settings(
        **{
            "database_url": database_url,
            "rabbitmq_url": "embedded://",
            "storage_path": folder / "storage",
            **settings,
        }
    )
    resources = Resources(
        database=Database(chosen.database_url),
        storage=LocalStorage(chosen.storage_path),
        queue=queue or EmbeddedQueue(),
        metrics=Metrics(),
    )
    await resources.queue.start()
    app = create_app(api_services(chosen, resources), chosen, resources.metrics)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50_000))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Api(app=app, client=client, settings=chosen, resources=resources)
    finally:
        await resources.queue.close()
        await resources.database.close()


class QueueThatIsAway(EmbeddedQueue):
    """A broker that cannot be reached."""

    async def publish(self, delivery: Delivery) -> None:
        raise QueueUnavailable(f"Cannot take {delivery.image_id}.")

    async def depth(self) -> Mapping[Lane, int]:
        raise QueueUnavailable


async def upload(
    api: Api, content: bytes = PNG, name: str = "a.png", kind: str = "image/png", *, key: str | None = None
) -> httpx.Response:
    """The answer to an upload, under an idempotency key if there is one."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return await api.client.post("/images", files={"file": (name, content, kind)}, headers=headers)


async def accepted(api: Api, content: bytes = PNG, *, key: str | None = None) -> str:
    """The id of an image whose upload must be accepted."""
    answer = await upload(api, content, key=key)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def told(api: Api, image_id: str) -> dict[str, Any]:
    """What the API says about an image that there must be."""
    answer = await api.client.get(f"/images/{image_id}")
    assert answer.status_code == 200, answer.text
    status: dict[str, Any] = answer.json()
    return status


async def claimed(api: Api, image_id: str) -> Claim:
    """What a worker does first."""
    async with api.database.transaction() as repositories:
        claim = await repositories.claims.claim(UUID(image_id), lease=60)
    assert claim is not None
    return claim


async def complete(api: Api, claim: Claim, quality: int = 75) -> dict[str, bytes]:
    """Make a claimed image DONE; returns the thumbnails' bytes, which depend on the quality."""
    contents = {name: encoded(gradient(*size), "JPEG", quality=quality) for name, size in SIZES.items()}
    keys = {name: thumbnail_key(claim.image_id, claim.attempt, name) for name in contents}
    async with api.resources.storage.scratch() as scratch:
        for name, content in contents.items():
            (scratch / name).write_bytes(content)
        await api.resources.storage.adopt({keys[name]: scratch / name for name in contents})
    thumbnails = tuple(
        Thumbnail(
            preset=name,
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
    """Make an image DONE, with the thumbnails' bytes as they are returned."""
    return await complete(api, await claimed(api, image_id), quality)


async def fail(api: Api, image_id: str) -> None:
    """Have an image end in ERROR."""
    claim = await claimed(api, image_id)
    async with api.database.transaction() as repositories:
        assert await repositories.claims.fail(claim, FAILURE)


async def remove_original(api: Api, image_id: str) -> None:
    """What the end of an original's retention does first."""
    async with api.database.transaction() as repositories:
        assert await repositories.images.remove_originals([UUID(image_id)])


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document that an answer must be."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(document) == {"type", "title", "status", "detail", "code"}
    assert answer.headers["x-request-id"]
    return document
