"""One run: so many pictures, from so many clients, until all are DONE; and the bare renderer beside it."""

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
from benchmarks.service.load import Job, Loaded, loading
from benchmarks.service.processes import API, BOTH, BROKER, CLIENT, DATABASE, WORKER, Watch, decoder_seconds
from benchmarks.service.records import Records, records
from harness.servers import new_folder
from harness.service import Standalone
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.pool import RenderPool

DISTRIBUTED: Final = "distributed"
STANDALONE: Final = "standalone"
_FINISH_LIMIT: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that runs."""

    mode: str
    url: str
    database_url: str
    storage: Path
    watch: Watch

    def file_bytes(self) -> int:
        """Bytes of all files kept.

        They stay until the end: for minutes, ext4 looks at each inode that was removed before it makes a new one.
        """
        folders = (self.storage / name for name in ("originals", "thumbnails"))
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


@contextmanager
def distributed(slots: int) -> Iterator[Running]:
    """PostgreSQL with fsync, RabbitMQ, an API and a worker, each in processes of its own."""
    with local_cluster(DECODE_SLOTS=str(slots)) as cluster:
        worker = cluster.worker("worker")
        groups = {
            API: (cluster.api.process,),
            WORKER: (worker.process,),
            DATABASE: (cluster.postgres.process,),
            BROKER: (cluster.rabbitmq.process,),
        }
        yield Running(
            mode=DISTRIBUTED,
            url=cluster.api.url,
            database_url=cluster.postgres.url,
            storage=cluster.folder / "storage",
            watch=Watch(groups),
        )


@contextmanager
def standalone(slots: int) -> Iterator[Running]:
    """Everything in one process, and its decoders."""
    folder = new_folder()
    try:
        with Standalone(folder, {"DECODE_SLOTS": str(slots)}) as service:
            yield Running(
                mode=STANDALONE,
                url=service.url,
                database_url=f"sqlite+aiosqlite:///{service.data / 'images.db'}",
                storage=service.data / "storage",
                watch=Watch({BOTH: (service.process,)}),
            )
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the renderer makes when it does nothing else."""

    rate: float
    """Images a second."""
    decode: float
    """Seconds of processor time that an image takes in the decoder."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run measured. Times in seconds, sizes in bytes."""

    mode: str
    picture: str
    clients: int
    images: int
    wall: float
    """From the first byte of the first upload to the last DONE."""
    answered: tuple[float, ...]
    """From the first byte of each upload to the whole of its answer."""
    done: tuple[float, ...]
    """From there to its DONE."""
    cpu: dict[str, float]
    """Processor time of all images, by process."""
    peaks: dict[str, int]
    """Memory of the largest process of each kind."""
    log_bytes: float
    """Write-ahead log of the database, for each image."""
    stored: float
    """Original and thumbnails, of each image."""
    processors: int
    ceiling: Ceiling

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.wall

    @property
    def rate_without_client(self) -> float:
        """The same if the client had processors of its own: what it used is taken off the time of all."""
        return self.images / (self.wall - self.cpu[CLIENT] / self.processors)

    @property
    def of_ceiling(self) -> float:
        """Images a second, the client's share taken off, through those of the bare renderer."""
        return self.rate_without_client / self.ceiling.rate

    @property
    def service_cpu(self) -> float:
        """Processor time of an image, the client's left out."""
        return sum(seconds for name, seconds in self.cpu.items() if name != CLIENT) / self.images

    @property
    def beside_decode(self) -> float:
        """The share of it that is not decoding."""
        return 1 - self.cpu["decode"] / self.images / self.service_cpu

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {
            "rate": self.rate,
            "rate_without_client": self.rate_without_client,
            "of_ceiling": self.of_ceiling,
            "beside_decode": self.beside_decode,
        }


@asynccontextmanager
async def warm_pool(slots: int, source: Path, out: Path) -> AsyncIterator[RenderPool]:
    """The bare renderer with so many decoders, each of which has made this picture before."""
    pool = RenderPool(slots)
    try:
        await asyncio.gather(*(render(pool, source, out) for _ in range(slots)))
        yield pool
    finally:
        await pool.close()


async def render(pool: RenderPool, source: Path, out: Path) -> float:
    """Seconds that one picture takes."""
    began = time.perf_counter()
    await pool.render(source, DEFAULT_RECIPE, out)
    return time.perf_counter() - began


async def ceiling(content: bytes, count: int, slots: int) -> Ceiling:
    """Render the picture as often, as many at a time as there are decoders, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(content)
        outs: asyncio.Queue[Path] = asyncio.Queue()
        for slot in range(slots):
            outs.put_nowait(Path(tempfile.mkdtemp(prefix=f"{slot}-", dir=folder)))
        async with warm_pool(slots, source, Path(folder)) as pool:

            async def one() -> None:
                out = await outs.get()
                await render(pool, source, out)
                outs.put_nowait(out)

            processor, began = decoder_seconds(), time.perf_counter()
            await asyncio.gather(*(one() for _ in range(count)))
            wall = time.perf_counter() - began
            return Ceiling(rate=count / wall, decode=(decoder_seconds() - processor) / count)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to do."""

    picture: str
    file: Path
    clients: int
    images: int
    processors: int


async def measure(running: Running, plan: Plan, most: Ceiling) -> Run:
    """Upload, and wait until all are DONE."""
    job = Job(url=running.url, file=str(plan.file), clients=plan.clients, images=plan.images)
    stored = await asyncio.to_thread(running.file_bytes)
    async with records(running.database_url) as known, loading(job) as begin:
        running.watch.forget_peaks()
        before, log = running.watch.seconds(), await known.log_bytes()
        loaded = await begin()
        finished = await _finished(known, loaded)
        after = running.watch.seconds()
        log = await known.log_bytes() - log
    peaks = running.watch.peaks()
    stored = await asyncio.to_thread(running.file_bytes) - stored
    return Run(
        mode=running.mode,
        picture=plan.picture,
        clients=plan.clients,
        images=plan.images,
        wall=max(finished.values()) - min(upload.begun for upload in loaded.uploads),
        answered=tuple(upload.answered for upload in loaded.uploads),
        done=tuple(finished[upload.id] - upload.begun for upload in loaded.uploads),
        cpu={**{name: spent - before[name] for name, spent in after.items()}, CLIENT: loaded.cpu},
        peaks=peaks,
        log_bytes=log / plan.images,
        stored=stored / plan.images,
        processors=plan.processors,
        ceiling=most,
    )


async def _finished(known: Records, loaded: Loaded) -> dict[UUID, float]:
    await known.until_finished(_FINISH_LIMIT)
    return await known.finished([upload.id for upload in loaded.uploads])
