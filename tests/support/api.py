"""The API put together as the program does it, on a database and a folder of the test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI

from image_service.api.main import create_app
from image_service.bootstrap import Resources, api_services
from image_service.config import Settings, load_settings
from image_service.database import Database
from image_service.ports import TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.storage.local import LocalStorage

BASE = "http://api.example:8000"


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
        """What lies in the scratch folder."""
        return list((self.settings.storage_path / "scratch").glob("*"))

    @property
    def originals(self) -> list[Path]:
        """The files of all originals."""
        return [path for path in (self.settings.storage_path / "originals").rglob("*") if path.is_file()]


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
    )
    await resources.queue.start()
    app = create_app(api_services(chosen, resources), chosen)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50_000))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Api(app=app, client=client, settings=chosen, resources=resources)
    finally:
        await resources.queue.close()
        await resources.database.close()
