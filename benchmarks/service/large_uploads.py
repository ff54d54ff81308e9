"""Memory of the API while many clients upload a large file at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.service.load import Job, load
from benchmarks.service.processes import API, BOTH
from benchmarks.service.records import records
from benchmarks.service.runs import ServiceUnderTest

_FINISH_LIMIT: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class LargeUploads:
    """Bytes of memory that the API held before the uploads, and at most during them."""

    mode: str
    clients: int
    megabytes: float
    before: int
    peak: int

    @property
    def growth(self) -> int:
        """Bytes by which the API grew."""
        return self.peak - self.before


async def measure_large_uploads(service: ServiceUnderTest, file: Path, megabytes: float, clients: int) -> LargeUploads:
    """Have as many clients upload the file at once, one time each."""
    job = Job(url=service.url, file=str(file), clients=clients, images=clients)
    async with records(service.database_url) as database, load(job) as start:
        service.usage.reset_peaks()
        before = service.usage.resident()
        await start()
        peaks = service.usage.peaks()
        await database.until_finished(_FINISH_LIMIT)
    part = API if API in before else BOTH
    return LargeUploads(
        mode=service.mode,
        clients=clients,
        megabytes=megabytes,
        before=before[part],
        peak=peaks[part],
    )
