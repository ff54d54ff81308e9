"""The use cases on a real database and a real folder, with a view of both from outside."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import func, select, update

from image_service.database import Database, Repositories
from image_service.domain.image import Claim, Image, ImageError, Original
from image_service.domain.keys import original_key
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.models import ImageRow
from image_service.ports import Renderer
from image_service.services.ingest import Ingest
from image_service.services.lookup import Lookup
from image_service.services.processing import Processing, ProcessingPolicy
from image_service.services.reconcile import Reconciler
from image_service.services.sweep import Sweeper
from image_service.services.timing import QueueTiming
from image_service.storage.local import LocalStorage
from tests.support.fakes import (
    HEADER,
    IMAGE,
    PATIENT,
    FakeInspector,
    FakeRenderer,
    Script,
    ScriptedDatabase,
    ScriptedQueue,
    ScriptedStorage,
)

Result = TypeVar("Result")

UNQUEUED_AFTER = 15.0
UNCLAIMED_AFTER = 300.0
GRACE = 3600.0
LEASE = 60.0
ERROR = ImageError(code="corrupt-image", detail="Export the image again.")

_TIMES = ("created_at", "updated_at", "queued_at", "lease_until", "due_at")


class Stage:
    """What one test plays on. The use cases share ``script``; the methods that look or prepare do not."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.script = Script()
        self.database = ScriptedDatabase(database_url, self.script)
        self.storage = ScriptedStorage(folder, self.script)
        self.queue = ScriptedQueue(self.script)
        self.inspector = FakeInspector()
        self.renderer = FakeRenderer(self.script)
        self._outside = Database(database_url, time_limit=PATIENT)
        self._timing = QueueTiming(unqueued_after=UNQUEUED_AFTER, unclaimed_after=UNCLAIMED_AFTER)

    @classmethod
    @asynccontextmanager
    async def on(cls, database_url: str, folder: Path) -> AsyncIterator[Self]:
        stage = cls(database_url, folder)
        await stage.queue.start()
        yield stage
        await stage.database.close()
        await stage._outside.close()

    def ingest(self, max_file_size: int = 1_000_000) -> Ingest:
        return Ingest(
            database=self.database,
            storage=self.storage,
            queue=self.queue,
            inspector=self.inspector,
            max_file_size=max_file_size,
            timing=self._timing,
        )

    def processing(self, renderer: Renderer | None = None, **policy: Any) -> Processing:  # noqa: ANN401  (a policy's own fields)
        usual = {
            "lease": LEASE,
            "heartbeat": 20.0,
            "max_attempts": 5,
            "max_decoder_failures": 3,
            "retry_delay": 2.0,
        }
        return Processing(
            database=self.database,
            storage=self.storage,
            renderer=renderer or self.renderer,
            recipe=DEFAULT_RECIPE,
            policy=ProcessingPolicy(**{**usual, **policy}),
        )

    def reconciler(self, database: Database | None = None) -> Reconciler:
        return Reconciler(database=database or self.database, queue=self.queue, timing=self._timing)

    def sweeper(self) -> Sweeper:
        return Sweeper(database=self.database, storage=self.storage, grace=GRACE)

    def lookup(self) -> Lookup:
        return Lookup(database=self.database, storage=self.storage)

    async def ask(self, query: Callable[[Repositories], Awaitable[Result]]) -> Result:
        """One query in a transaction of its own, on a connection that no use case has."""
        async with self._outside.transaction() as repositories:
            return await query(repositories)

    async def image(self, image_id: UUID) -> Image:
        image = await self.ask(lambda r: r.images.get(image_id))
        assert image is not None
        return image

    async def row(self, image_id: UUID) -> dict[str, Any]:
        """Everything recorded about an image."""
        statement = select(*ImageRow.__table__.c).where(ImageRow.id == image_id)
        result = await self.ask(lambda r: r.images._connection.execute(statement))
        return dict(result.mappings().one())

    async def count(self) -> int:
        """How many images are recorded."""
        result = await self.ask(lambda r: r.images._connection.execute(select(func.count(ImageRow.id))))
        return int(result.scalar_one())

    async def time_passes(self, image_id: UUID, seconds: float) -> None:
        """Move everything that is timed about an image into the past."""
        row = await self.row(image_id)
        earlier = {name: row[name] - timedelta(seconds=seconds) for name in _TIMES if row[name] is not None}
        statement = update(ImageRow).where(ImageRow.id == image_id).values(**earlier)
        await self.ask(lambda r: r.images._connection.execute(statement))

    async def new(self, content: bytes = IMAGE) -> UUID:
        """An image whose API was killed after the commit: stored and recorded, and not queued."""
        digest = hashlib.sha256(content).hexdigest()
        original = Original(id=uuid4(), header=HEADER, size_bytes=len(content), sha256=digest)
        await self.put(original_key(original.id), content)
        await self.ask(lambda r: r.images.add(original, due_in=UNQUEUED_AFTER))
        return original.id

    async def queued(self) -> UUID:
        """An image that counts as queued; there is no message, unless the test publishes one."""
        image_id = await self.new()
        assert await self.ask(lambda r: r.images.mark_queued(image_id, due_in=UNCLAIMED_AFTER))
        return image_id

    async def claim(self, image_id: UUID) -> Claim:
        """What another worker does first."""
        claim = await self.ask(lambda r: r.images.claim(image_id, lease=LEASE))
        assert claim is not None
        return claim

    async def claimed(self) -> Claim:
        """An image that another worker holds."""
        return await self.claim(await self.queued())

    async def fail(self, claim: Claim) -> None:
        assert await self.ask(lambda r: r.images.fail(claim, ERROR))

    async def status(self, image_id: UUID) -> Status:
        return (await self.image(image_id)).status

    async def put(self, key: str, content: bytes = b"x", age: float = 0) -> None:
        """Store a file, as if so many seconds ago."""
        storage = LocalStorage(self.folder)
        async with storage.scratch() as scratch:
            path = scratch / "file"
            path.write_bytes(content)
            await storage.adopt({key: path})
        self.grow_old(key, age)

    def grow_old(self, name: str, age: float) -> None:
        written = time.time() - age
        os.utime(self.folder / name, (written, written))

    async def content(self, key: str) -> bytes:
        return b"".join([piece async for piece in LocalStorage(self.folder).read(key)])

    async def files(self, prefix: str = "") -> set[str]:
        return {item.key async for item in LocalStorage(self.folder).list(prefix)}

    def scratch(self) -> list[Path]:
        """What lies in scratch folders."""
        return list((self.folder / "scratch").iterdir())
