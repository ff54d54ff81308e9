"""Measures the memory of API and worker while pictures of 5 MB are uploaded and rendered, with files on an S3 server.

    make bench-storage                    or: python -m benchmarks.operations.object_storage --images 40 --at-once 4

Servers, an API and a worker run as processes of their own with the default settings. First one picture is uploaded, and
the curve of its memory printed; then many, some at once; then all their originals are read through the API. The figures
are the resident memory in MB of the API, of the worker, and of its decoder processes together.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx
import psutil

from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from harness.images import encoded, noise
from harness.s3 import SeaweedServer, environment, make_bucket
from harness.servers import new_folder
from harness.service import Worker, client, done, finished, upload, upload_all

_INTERVAL: Final = 0.02
_MEGABYTE: Final = 1024 * 1024
_LINES: Final = 24
"""Lines of the printed curve."""
_BAR: Final = 70


@dataclass(frozen=True)
class Sample:
    """Resident memory at one moment, in bytes."""

    at: float
    """Seconds since the start."""
    api: int
    worker: int
    decoders: int


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=40, help="pictures in the second round (default 40)")
    options.add_argument("--at-once", type=int, default=4, help="uploads at a time (default 4)")
    given = options.parse_args()
    photo = encoded(noise(2520, 1890), "JPEG", quality=96)
    # Decoders ignore what follows the image.
    photo += bytes(max(0, 5 * _MEGABYTE + 1 - len(photo)))
    with SeaweedServer(new_folder()) as s3:
        make_bucket(s3.url, "images")
        with local_cluster(STORAGE_URL="s3://images/bench", **environment(s3.url)) as cluster:
            asyncio.run(_run(cluster, cluster.worker("worker"), photo, given.images, given.at_once))


async def _run(cluster: LocalCluster, worker: Worker, photo: bytes, images: int, at_once: int) -> None:
    print(f"{os.cpu_count()} processors; a JPEG of {len(photo) / _MEGABYTE:.2f} MiB; STORAGE_URL=s3://… (SeaweedFS)\n")
    async with client(cluster.api.url) as http, _sampled(cluster, worker) as samples:
        await asyncio.sleep(0.5)
        idle = len(samples)
        began = time.perf_counter()
        accepted = await upload(http, photo)
        answered = time.perf_counter() - began
        await done(http, accepted["id"])
        print(f"One picture: 202 after {answered * 1000:.0f} ms, DONE after {time.perf_counter() - began:.2f} s")
        await asyncio.sleep(0.5)
        _curve(samples[max(0, idle - 5) :])
        _summary("before", samples[:idle])
        _summary("one picture", samples[idle:])
        for number in (1, 2):
            before = len(samples)
            ids = await upload_all(http, [photo] * images, at_once)
            images_finished = await finished(http, ids, timeout=300)
            assert {image["status"] for image in images_finished} == {"DONE"}
            _summary(f"{images} pictures, {at_once} at once, round {number}", samples[before:])
        before = len(samples)
        await _read(http, ids)
        _summary(f"{images} originals read", samples[before:])


async def _read(http: httpx.AsyncClient, ids: Iterable[str]) -> None:
    for image_id in ids:
        async with http.stream("GET", f"/images/{image_id}/original") as answer:
            assert answer.status_code == 200  # noqa: PLR2004 - OK
            async for _ in answer.aiter_raw():
                pass


@asynccontextmanager
async def _sampled(cluster: LocalCluster, worker: Worker) -> AsyncIterator[list[Sample]]:
    """Samples the processes' memory fifty times a second; yields the growing list of samples."""
    samples: list[Sample] = []
    began = time.perf_counter()

    async def sample() -> None:
        while True:
            decoders = sum(_resident(decoder) for decoder in worker.process.children())
            at = time.perf_counter() - began
            samples.append(Sample(at, _resident(cluster.api.process), _resident(worker.process), decoders))
            await asyncio.sleep(_INTERVAL)

    sampling = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _curve(samples: list[Sample]) -> None:
    """Print the curve: one line for each span of time, with the peak in it."""
    print("\n     ms   API  worker  decoders")
    each = -(-len(samples) // _LINES)
    peak = max(sample.api + sample.worker + sample.decoders for sample in samples)
    for start in range(0, len(samples), each):
        span = samples[start : start + each]
        api, worker = max(s.api for s in span), max(s.worker for s in span)
        decoders = max(s.decoders for s in span)
        at = (span[0].at - samples[0].at) * 1000
        bar = "█" * round(_BAR * api / peak) + "▓" * round(_BAR * worker / peak) + "▒" * round(_BAR * decoders / peak)
        print(f"{at:7.0f}{api / _MEGABYTE:6.0f}{worker / _MEGABYTE:8.0f}{decoders / _MEGABYTE:10.0f}  {bar}")
    print()


def _summary(what: str, samples: list[Sample]) -> None:
    peak = Sample(0.0, max(s.api for s in samples), max(s.worker for s in samples), max(s.decoders for s in samples))
    print(
        f"{what:40} peak: API {peak.api / _MEGABYTE:.0f}, worker {peak.worker / _MEGABYTE:.0f}, "
        f"decoders {peak.decoders / _MEGABYTE:.0f}; at the end: API {samples[-1].api / _MEGABYTE:.0f}, "
        f"worker {samples[-1].worker / _MEGABYTE:.0f}"
    )


if __name__ == "__main__":
    main()
