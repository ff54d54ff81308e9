"""Use cases on a real database and a real directory, with access to both from outside."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import func, select, update

from harness.fakes import (
    HEADER,
    IMAGE,
    LONG_TIMEOUT,
    FakeInspector,
    FakeRenderer,
    Script,
    ScriptedDatabase,
    ScriptedQueue,
    ScriptedStorage,
)
from image_service.database import Database, Repositories
from image_service.database.clock import in_seconds
from image_service.domain.image import Claim, Image, ImageError, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane, lane_of
from image_service.domain.recipe import Recipes
from image_service.domain.status import Status
from image_service.models import ImageRow, RemovalRow, ThumbnailRow
from image_service.observability.metrics import Metrics
from image_service.ports import NULL_OBSERVER, Delivery, Observer, Renderer, Storage
from image_service.services.attempts import ProcessingPolicy
from image_service.services.audit import Audit
from image_service.services.backfill import Backfill
from image_service.services.backlog import Backlog
from image_service.services.backlog_gauges import BacklogGauges
from image_service.services.deletion import Deletion
from image_service.services.health import HealthCheck
from image_service.services.ingest import Ingest, IngestLimits
from image_service.services.lookup import Lookup
from image_service.services.processing import Processing
from image_service.services.publishing import Publisher, QueueTiming
from image_service.services.reconciler import Reconciler
from image_service.services.reprocessing import Reprocessing
from image_service.services.retention import Retention
from image_service.services.storage_binding import StorageBinding
from image_service.services.sweeper import Sweeper
from image_service.storage.local import LocalStorage

Result = TypeVar("Result")

UNQUEUED_AFTER = 15.0
UNCLAIMED_AFTER = 300.0
GRACE = 3600.0
LEASE = 60.0
SUPERSEDED_FOR = 600.0
LANE = lane_of(HEADER, 1)
ERROR = ImageError(code="corrupt-image", detail="Export the image again.")

OUTDATED = "another recipe"
"""The fingerprint of an earlier recipe."""

_TIMES = (
    "created_at",
    "updated_at",
    "queued_at",
    "lease_until",
    "due_at",
    "finished_at",
    "outputs_due_at",
    "outputs_lease_until",
)


class ServiceHarness:
    """The use cases of one test. They share ``script``; the methods that inspect or prepare state do not use it."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.script = Script()
        self.database = ScriptedDatabase(database_url, self.script)
        self.storage = ScriptedStorage(folder, self.script)
        self.queue = ScriptedQueue(self.script)
        self.inspector = FakeInspector()
        self.renderer = FakeRenderer(self.script)
        self.metrics = Metrics()
        self.recipes = Recipes()
        """The recipes that all use cases know; a test may replace them."""
        self._outside = Database(database_url, time_limit=LONG_TIMEOUT)
        self._timing = QueueTiming(unqueued_after=UNQUEUED_AFTER, unclaimed_after=UNCLAIMED_AFTER)

    @classmethod
    @asynccontextmanager
    async def on(cls, database_url: str, folder: Path) -> AsyncIterator[Self]:
        env = cls(database_url, folder)
        await env.queue.start()
        await StorageBinding(database=env._outside, storage=LocalStorage(folder)).establish()
        try:
            yield env
        finally:
            await env.database.close()
            await env._outside.close()

    def publisher(self, database: Database | None = None) -> Publisher:
        return Publisher(database=database or self.database, queue=self.queue, timing=self._timing)

    def ingest(self, **limits: Any) -> Ingest:  # noqa: ANN401  (the fields of IngestLimits)
        return Ingest(
            database=self.database,
            storage=self.storage,
            publisher=self.publisher(),
            inspector=self.inspector,
            limits=IngestLimits(**{"max_file_size": 1_000_000, **limits}),
            recipes=self.recipes,
            observer=self.metrics,
        )

    def processing(self, renderer: Renderer | None = None, **policy: Any) -> Processing:  # noqa: ANN401  (the fields of ProcessingPolicy)
        return _processing(self.database, self.storage, renderer or self.renderer, self.recipes, self.metrics, **policy)

    def reconciler(self, database: Database | None = None, **options: Any) -> Reconciler:  # noqa: ANN401  (options of the constructor)
        database = database or self.database
        return Reconciler(database=database, queue=self.queue, publisher=self.publisher(database), **options)

    def deletion(self, **options: Any) -> Deletion:  # noqa: ANN401  (options of the constructor)
        return Deletion(database=self.database, storage=self.storage, **options)

    def reprocessing(self, **options: Any) -> Reprocessing:  # noqa: ANN401  (options of the constructor)
        return Reprocessing(database=self.database, publisher=self.publisher(), recipes=self.recipes, **options)

    def backfill(self, **options: Any) -> Backfill:  # noqa: ANN401  (options of the constructor)
        return Backfill(database=self.database, recipes=self.recipes, **options)

    def backlog(self, limit: int, **options: Any) -> Backlog:  # noqa: ANN401  (options of the constructor)
        return Backlog(database=self.database, limit=limit, **options)

    def retention(
        self, *, originals_for: float | None = None, images_for: float | None = None, batch: int = 100
    ) -> Retention:
        return Retention(database=self.database, originals_for=originals_for, images_for=images_for, batch=batch)

    def sweeper(self, clock: Callable[[], float] = time.monotonic, **options: Any) -> Sweeper:  # noqa: ANN401  (options of the constructor)
        return Sweeper(database=self.database, storage=self.storage, grace=GRACE, clock=clock, **options)

    async def sweep(self, **options: Any) -> int:  # noqa: ANN401  (options of the constructor)
        """Run a sweeper twice, the second time after its grace; returns how many files it deleted."""
        sweeper = self.sweeper(count(0.0, GRACE).__next__, **options)
        return await sweeper.run_once() + await sweeper.run_once()

    def audit(self, *, with_queue: bool = True, **options: Any) -> Audit:  # noqa: ANN401  (options of the constructor)
        return Audit(
            database=self.database,
            storage=self.storage,
            sweeper=self.sweeper(),
            reprocessing=self.reprocessing(),
            reconciler=self.reconciler() if with_queue else None,
            **options,
        )

    def backlog_gauges(self, limit: int = 1000) -> BacklogGauges:
        health = HealthCheck(
            database=self.database, queue=self.queue, storage=self.storage, observer=self.metrics, reused_for=0
        )
        return BacklogGauges(database=self.database, health=health, observer=self.metrics, limit=limit)

    def lookup(self) -> Lookup:
        return Lookup(database=self.database, storage=self.storage, recipes=self.recipes)

    async def ask(self, query: Callable[[Repositories], Awaitable[Result]]) -> Result:
        """Run a query in a transaction of its own, on a connection that no use case uses."""
        async with self._outside.transaction() as repositories:
            return await query(repositories)

    async def image(self, image_id: UUID) -> Image:
        image = await self.ask(lambda r: r.images.get(image_id))
        assert image is not None
        return image

    async def row(self, image_id: UUID) -> dict[str, Any]:
        """Returns all columns of an image."""
        statement = select(*ImageRow.__table__.c).where(ImageRow.id == image_id)
        result = await self.ask(lambda r: r.connection.execute(statement))
        return dict(result.mappings().one())

    async def count(self) -> int:
        """Returns the number of recorded images."""
        result = await self.ask(lambda r: r.connection.execute(select(func.count(ImageRow.id))))
        return int(result.scalar_one())

    async def time_passes(self, image_id: UUID, seconds: float) -> None:
        """Move all timestamps of an image into the past."""
        row = await self.row(image_id)
        earlier = {name: row[name] - timedelta(seconds=seconds) for name in _TIMES if row[name] is not None}
        await self.change(image_id, **earlier)

    async def change(self, image_id: UUID, **values: object) -> None:
        """Change columns of an image directly."""
        statement = update(ImageRow).where(ImageRow.id == image_id).values(**values)
        await self.ask(lambda r: r.connection.execute(statement))

    async def new(self, content: bytes = IMAGE, lane: Lane = LANE, recipe: str | None = None) -> UUID:
        """Returns an image that is stored and recorded but not queued, as after a crash of the API after the commit."""
        digest = hashlib.sha256(content).hexdigest()
        original = Original(id=uuid4(), header=HEADER, size_bytes=len(content), sha256=digest, recipe_name=recipe)
        await self.put(original_key(original.id), content)
        await self.ask(lambda r: r.images.add(original, lane=lane, due_in=UNQUEUED_AFTER))
        return original.id

    async def queued(self, lane: Lane = LANE, recipe: str | None = None) -> UUID:
        """Returns an image that is marked as queued; it has no message unless the test publishes one."""
        image_id = await self.new(lane=lane, recipe=recipe)
        assert await self.ask(lambda r: r.scheduling.mark_queued(image_id, due_in=UNCLAIMED_AFTER))
        return image_id

    async def claim(self, image_id: UUID) -> Claim:
        """Claim an image as another worker."""
        claim = await self.ask(lambda r: r.claims.claim(image_id, lease=LEASE))
        assert claim is not None
        return claim

    async def claimed(self) -> Claim:
        """Returns the claim of another worker on a queued image."""
        return await self.claim(await self.queued())

    async def leased(self) -> UUID:
        """Returns an image that another worker has claimed."""
        return (await self.claimed()).image_id

    async def fail(self, claim: Claim) -> None:
        assert await self.ask(lambda r: r.claims.fail(claim, ERROR))

    async def failed(self) -> UUID:
        """Returns an image that ended in ERROR."""
        claim = await self.claimed()
        await self.fail(claim)
        return claim.image_id

    async def render(self, image_id: UUID, lane: Lane = LANE) -> None:
        """Process an image as another worker, without the script."""
        unscripted = _processing(self._outside, LocalStorage(self.folder), FakeRenderer(Script()), self.recipes)
        await unscripted.process(Delivery(image_id=image_id, lane=lane))

    async def done(self, recipe: str | None = None) -> UUID:
        """Returns an image that is DONE, made by an earlier version with the recipe of the given fingerprint."""
        image_id = await self.queued()
        await self.render(image_id)
        if recipe is not None:
            await self.change(image_id, recipe=recipe)
            files = update(ThumbnailRow).where(ThumbnailRow.image_id == image_id).values(fingerprint=None)
            await self.ask(lambda r: r.connection.execute(files))
        return image_id

    async def reprocess(self, image_id: UUID, lane: Lane = LANE) -> None:
        """Make a finished image NEW again, without queueing it."""
        assert await self.ask(lambda r: r.images.reprocess([image_id], lane=lane, due_in=UNQUEUED_AFTER))

    async def renewed(self) -> UUID:
        """Returns an image that was DONE and is NEW again, not queued."""
        image_id = await self.done()
        await self.reprocess(image_id)
        return image_id

    async def removals(self) -> dict[str, float]:
        """Returns the files that are due for removal, with the seconds until then."""
        seconds = RemovalRow.due_at, in_seconds(0)
        result = await self.ask(lambda r: r.connection.execute(select(RemovalRow.key, *seconds)))
        return {row[0]: (row[1] - row[2]).total_seconds() for row in result}

    async def status(self, image_id: UUID) -> Status:
        return (await self.image(image_id)).status

    async def put(self, key: str, content: bytes = b"x", age: float = 0) -> None:
        """Store a file whose age is ``age`` seconds."""
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
        """Returns the scratch directories that are not empty."""
        return [path for path in (self.folder / "scratch").iterdir() if any(path.iterdir())]


def _processing(
    database: Database,
    storage: Storage,
    renderer: Renderer,
    recipes: Recipes,
    observer: Observer = NULL_OBSERVER,
    **policy: Any,  # noqa: ANN401  (the fields of ProcessingPolicy)
) -> Processing:
    defaults = {
        "lease": LEASE,
        "heartbeat": 20.0,
        "max_attempts": 5,
        "max_decoder_failures": 3,
        "retry_delay": 2.0,
    }
    return Processing(
        database=database,
        storage=storage,
        renderers=dict.fromkeys(Lane, renderer),
        recipes=recipes,
        policy=ProcessingPolicy(**{**defaults, **policy}),
        observer=observer,
    )
