"""One run: upload a number of pictures from a number of clients until all are DONE; and the bare renderer's ceiling."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from benchmarks.operations.local_cluster import local_cluster
from benchmarks.service.load import Job, LoadResult, load
from benchmarks.service.processes import (
    API,
    BOTH,
    BROKER,
    CLIENT,
    DATABASE,
    DECODE,
    WORKER,
    ResourceUsage,
    decoder_seconds,
)
from benchmarks.service.records import Records, records
from harness.servers import new_folder
from harness.service import Standalone
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.isolation.pool import RenderPool

DISTRIBUTED: Final = "distributed"
STANDALONE: Final = "standalone"
_FINISH_LIMIT: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class ServiceUnderTest:
    """A running service and its processes."""

    mode: str
    url: str
    database_url: str
    storage: Path
    usage: ResourceUsage

    def file_bytes(self) -> int:
        """Returns the bytes of all stored files.

        No file is removed before the end of the benchmark: for minutes after a removal, ext4 examines each removed
        inode before it creates a file.
        """
        folders = (self.storage / name for name in ("originals", "thumbnails"))
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


@contextmanager
def distributed(slots: int) -> Iterator[ServiceUnderTest]:
    """Starts PostgreSQL with fsync, RabbitMQ, an API and a worker, each in processes of its own."""
    with local_cluster(DECODE_SLOTS=str(slots)) as cluster:
        worker = cluster.worker("worker")
        groups = {
            API: (cluster.api.process,),
            WORKER: (worker.process,),
            DATABASE: (cluster.postgres.process,),
            BROKER: (cluster.rabbitmq.process,),
        }
        yield ServiceUnderTest(
            mode=DISTRIBUTED,
            url=cluster.api.url,
            database_url=cluster.postgres.url,
            storage=cluster.folder / "storage",
            usage=ResourceUsage(groups),
        )


@contextmanager
def standalone(slots: int) -> Iterator[ServiceUnderTest]:
    """Starts the standalone service: one process and its decoder processes."""
    folder = new_folder()
    try:
        with Standalone(folder, {"DECODE_SLOTS": str(slots)}) as service:
            yield ServiceUnderTest(
                mode=STANDALONE,
                url=service.url,
                database_url=f"sqlite+aiosqlite:///{service.data / 'images.db'}",
                storage=service.data / "storage",
                usage=ResourceUsage({BOTH: (service.process,)}),
            )
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Speed of the bare renderer, without the service."""

    rate: float
    """Images a second."""
    decode: float
    """Seconds of a decoder's processor time for an image."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Measurements of one run. Times are in seconds, sizes in bytes."""

    mode: str
    picture: str
    clients: int
    images: int
    wall: float
    """From the first byte of the first upload to the last DONE."""
    answered: tuple[float, ...]
    """From the first byte of each upload to the end of its response."""
    done: tuple[float, ...]
    """From the first byte of each upload to its DONE."""
    cpu: dict[str, float]
    """Processor time for all images, by group of processes."""
    peaks: dict[str, int]
    """Peak memory of the largest process of each group."""
    log_bytes: float
    """Write-ahead log of the database for an image."""
    stored: float
    """Original and thumbnails of an image."""
    processors: int
    ceiling: Ceiling

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.wall

    @property
    def rate_without_client(self) -> float:
        """Images a second if the client had processors of its own: its share of the processor time is subtracted."""
        return self.images / (self.wall - self.cpu[CLIENT] / self.processors)

    @property
    def of_ceiling(self) -> float:
        """Images a second without the client's share, divided by those of the bare renderer."""
        return self.rate_without_client / self.ceiling.rate

    @property
    def service_cpu(self) -> float:
        """Processor time for an image without the client's."""
        return sum(seconds for name, seconds in self.cpu.items() if name != CLIENT) / self.images

    @property
    def decoder_cpu(self) -> float:
        """Processor time of the decoders for an image."""
        return self.cpu[DECODE] / self.images

    @property
    def beside_decode(self) -> float:
        """Share of the service's processor time that is not decoding."""
        return 1 - self.decoder_cpu / self.service_cpu

    @property
    def overhead(self) -> float:
        """The processor time that is not decoding, divided by that of decoding: a faster machine has the same."""
        return self.service_cpu / self.decoder_cpu - 1

    def of_floor(self, ingest: float) -> float:
        """Returns the processor time, divided by that of bare rendering and of bare durable ingest, in seconds."""
        return self.service_cpu / (self.ceiling.decode + ingest)

    def summary(self) -> dict[str, Any]:
        """Returns the measurements as JSON values."""
        return asdict(self) | {
            "rate": self.rate,
            "rate_without_client": self.rate_without_client,
            "of_ceiling": self.of_ceiling,
            "beside_decode": self.beside_decode,
            "overhead": self.overhead,
        }


@asynccontextmanager
async def warm_pool(slots: int, source: Path, out: Path) -> AsyncIterator[RenderPool]:
    """Starts the bare renderer, with ``slots`` decoder processes that have each rendered the picture once."""
    pool = RenderPool(slots)
    try:
        await asyncio.gather(*(render(pool, source, out) for _ in range(slots)))
        yield pool
    finally:
        await pool.close()


async def render(pool: RenderPool, source: Path, out: Path) -> float:
    """Render a picture; returns the seconds that it took."""
    began = time.perf_counter()
    await pool.render(source, DEFAULT_RECIPE, out)
    return time.perf_counter() - began


async def measure_ceiling(content: bytes, count: int, slots: int) -> Ceiling:
    """Render the picture ``count`` times, as many at a time as there are decoder processes, without the service."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(content)
        outs: asyncio.Queue[Path] = asyncio.Queue()
        for slot in range(slots):
            outs.put_nowait(Path(tempfile.mkdtemp(prefix=f"{slot}-", dir=folder)))
        async with warm_pool(slots, source, Path(folder)) as pool:

            async def render_one() -> None:
                out = await outs.get()
                await render(pool, source, out)
                outs.put_nowait(out)

            processor, began = decoder_seconds(), time.perf_counter()
            await asyncio.gather(*(render_one() for _ in range(count)))
            wall = time.perf_counter() - began
            return Ceiling(rate=count / wall, decode=(decoder_seconds() - processor) / count)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Parameters of a run."""

    picture: str
    file: Path
    clients: int
    images: int
    processors: int


async def measure(service: ServiceUnderTest, plan: Plan, ceiling: Ceiling) -> Run:
    """Upload, and wait until all are DONE."""
    job = Job(url=service.url, file=str(plan.file), clients=plan.clients, images=plan.images)
    stored = await asyncio.to_thread(service.file_bytes)
    async with records(service.database_url) as database, load(job) as start:
        service.usage.reset_peaks()
        before, log = service.usage.seconds(), await database.log_bytes()
        result = await start()
        finished = await _finished(database, result)
        after = service.usage.seconds()
        log = await database.log_bytes() - log
    peaks = service.usage.peaks()
    stored = await asyncio.to_thread(service.file_bytes) - stored
    return Run(
        mode=service.mode,
        picture=plan.picture,
        clients=plan.clients,
        images=plan.images,
        wall=max(finished.values()) - min(upload.begun for upload in result.uploads),
        answered=tuple(upload.answered for upload in result.uploads),
        done=tuple(finished[upload.id] - upload.begun for upload in result.uploads),
        cpu={**{name: spent - before[name] for name, spent in after.items()}, CLIENT: result.cpu},
        peaks=peaks,
        log_bytes=log / plan.images,
        stored=stored / plan.images,
        processors=plan.processors,
        ceiling=ceiling,
    )


async def _finished(database: Records, result: LoadResult) -> dict[UUID, float]:
    await database.until_finished(_FINISH_LIMIT)
    return await database.finished([upload.id for upload in result.uploads])
