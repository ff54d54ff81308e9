"""Latency of an idle service: one upload at a time, each after the one before is DONE."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.service.load import Connection, post
from benchmarks.service.records import records
from benchmarks.service.runs import ServiceUnderTest, render, warm_pool

_DONE_LIMIT: Final = 60.0
_WARM_UP: Final = 3


@dataclass(frozen=True, kw_only=True)
class IdleLatency:
    """Seconds that each upload took while the service did nothing else."""

    mode: str
    picture: str
    kilobytes: float
    answered: tuple[float, ...]
    done: tuple[float, ...]
    """From the first byte until another connection to the database sees DONE, that is, after the commit."""
    rendered: float
    """Median seconds that the bare renderer takes for the picture."""

    @property
    def beside_render(self) -> float:
        """Median seconds that the service adds to rendering."""
        return statistics.median(self.done) - self.rendered


async def measure_idle(service: ServiceUnderTest, picture: str, content: bytes, count: int) -> IdleLatency:
    """Upload a picture ``count`` times, one at a time, and render it as often without the service."""
    request = post(content)
    answered: list[float] = []
    done: list[float] = []
    async with records(service.database_url) as database:
        connection = await Connection.open(service.url)
        try:
            for _ in range(_WARM_UP + count):
                began = time.perf_counter()
                upload = await connection.upload(request)
                await database.until_done(upload.id, _DONE_LIMIT)
                done.append(time.perf_counter() - began)
                answered.append(upload.answered)
        finally:
            connection.close()
    return IdleLatency(
        mode=service.mode,
        picture=picture,
        kilobytes=len(content) / 1000,
        answered=tuple(answered[_WARM_UP:]),
        done=tuple(done[_WARM_UP:]),
        rendered=await _bare_render(content, count),
    )


async def _bare_render(content: bytes, count: int) -> float:
    """Returns the median seconds that the bare renderer takes for one picture."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(content)
        async with warm_pool(1, source, Path(folder)) as pool:
            return statistics.median([await render(pool, source, Path(folder)) for _ in range(count)])
