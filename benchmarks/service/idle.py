"""What is measured beside the runs: one upload after the other while nothing else is done, and a hundred large ones."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.service.load import Connection, Job, loading, post
from benchmarks.service.processes import API, BOTH
from benchmarks.service.records import records
from benchmarks.service.runs import Running, render, warm_pool

_LIMIT: Final = 60.0
_WARM_UP: Final = 3


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Seconds of each upload, while nothing else was done."""

    mode: str
    picture: str
    kilobytes: float
    answered: tuple[float, ...]
    done: tuple[float, ...]
    """To DONE, as a reader of the database sees it: after the commit."""
    rendered: float
    """Seconds that the bare renderer takes for the picture, by its median."""

    @property
    def beside_render(self) -> float:
        """What the service adds, by the median."""
        return statistics.median(self.done) - self.rendered


@dataclass(frozen=True, kw_only=True)
class Many:
    """The API's memory, in bytes, with many large uploads at once."""

    mode: str
    clients: int
    megabytes: float
    before: int
    peak: int

    @property
    def growth(self) -> int:
        """By how much it grew."""
        return self.peak - self.before


async def idle(running: Running, picture: str, content: bytes, count: int) -> Idle:
    """Upload a picture so many times, each when the one before is DONE; and render it as often, without the service."""
    request = post(content)
    answered: list[float] = []
    done: list[float] = []
    async with records(running.database_url) as known:
        connection = await Connection.open(running.url)
        try:
            for _ in range(_WARM_UP + count):
                began = time.perf_counter()
                upload = await connection.upload(request)
                await known.until_done(upload.id, _LIMIT)
                done.append(time.perf_counter() - began)
                answered.append(upload.answered)
        finally:
            connection.close()
    return Idle(
        mode=running.mode,
        picture=picture,
        kilobytes=len(content) / 1000,
        answered=tuple(answered[_WARM_UP:]),
        done=tuple(done[_WARM_UP:]),
        rendered=await alone(content, count),
    )


async def alone(content: bytes, count: int) -> float:
    """Seconds that the bare renderer takes for one picture, by the median."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(content)
        async with warm_pool(1, source, Path(folder)) as pool:
            return statistics.median([await render(pool, source, Path(folder)) for _ in range(count)])


async def many(running: Running, file: Path, megabytes: float, clients: int) -> Many:
    """Have as many clients upload the file at once, one time each."""
    job = Job(url=running.url, file=str(file), clients=clients, images=clients)
    async with records(running.database_url) as known, loading(job) as begin:
        running.watch.forget_peaks()
        before = running.watch.held()
        await begin()
        peaks = running.watch.peaks()
        await known.until_finished(_LIMIT)
    part = API if API in before else BOTH
    return Many(
        mode=running.mode,
        clients=clients,
        megabytes=megabytes,
        before=before[part],
        peak=peaks[part],
    )
