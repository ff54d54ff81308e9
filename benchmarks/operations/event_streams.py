"""Shows that a client that is cut again and again misses no event, and measures what idle streams cost.

    make bench-events                      or: python -m benchmarks.operations.event_streams --images 2000 --cuts 200

First a client follows all events over two API processes, each of its connections to one of them by chance and cut after
a random number of lines, often within an event. Meanwhile images are uploaded and rendered by a worker, on PostgreSQL
and RabbitMQ, and one of the API processes is killed with SIGKILL and started again, five times. What the client got
is compared with the log. Then many streams are opened at one API process, where nothing happens for half a minute; at
the end one image is uploaded, which all streams report. Everything is on loopback.
"""

import argparse
import asyncio
import os
import resource
import statistics
import time
from typing import Final

import psutil

from benchmarks.operations.local_cluster import LocalCluster, local_cluster
from harness.images import encoded, gradient
from harness.service import Api, client, upload, upload_all
from harness.sse import Comparison, Follower, logged

_IMAGE: Final = encoded(gradient(16, 16), "PNG")
_LIMIT: Final = 1800.0
"""Seconds after which the run has failed."""
_LINES_PER_IMAGE: Final = 8
"""Of its two events in a stream."""
_IDLE_SECONDS: Final = 30
_DEATHS: Final = 5
_KILOBYTE: Final = 1024
_REQUEST: Final = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=2000, help="images that pass (default 2000; 0: none)")
    options.add_argument("--cuts", type=int, default=200, help="connections that are cut (default 200)")
    options.add_argument("--streams", type=int, default=1000, help="idle streams (default 1000; 0: none)")
    options.add_argument("--seed", type=int, default=1, help="of the cuts (default 1)")
    given = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with local_cluster(MAX_EVENT_STREAMS=str(max(given.streams, 10))) as cluster:
        asyncio.run(_run(cluster, given.images, given.cuts, given.streams, given.seed))
    print(f"load average {os.getloadavg()[0]:.1f}")


async def _run(cluster: LocalCluster, images: int, cuts: int, streams: int, seed: int) -> None:
    async with asyncio.timeout(_LIMIT):
        if images:
            worker = await asyncio.to_thread(cluster.worker, "worker")
            await _cut(cluster, images, cuts, seed)
            await asyncio.to_thread(worker.stop)
        if streams:
            await _idle(cluster, streams)


async def _cut(cluster: LocalCluster, images: int, cuts: int, seed: int) -> None:
    """Follow all events with a client that is cut, and compare what it received with the log."""
    with Api(cluster.folder / "other", cluster.env) as other:
        follower = Follower(
            urls=[f"{api.url}/events" for api in (cluster.api, other)],
            cuts=cuts,
            lines=max(4, 2 * _LINES_PER_IMAGE * images // (cuts + 1) - 1),
            seed=seed,
        )
        began = time.perf_counter()
        following = asyncio.create_task(follower.follow(2 * images))
        await follower.begun.wait()
        async with client(cluster.api.url) as http:
            parts = [images // (_DEATHS + 1)] * _DEATHS
            for part in parts:
                await upload_all(http, [_IMAGE] * part)
                await asyncio.to_thread(other.kill)
                await upload_all(http, [_IMAGE] * 10)
                await asyncio.to_thread(other.start)
            await upload_all(http, [_IMAGE] * (images - sum(parts) - 10 * _DEATHS))
            await following
            seconds = time.perf_counter() - began
            recorded = await logged(http)
    found = Comparison.of(follower.events, recorded)
    print(
        f"{images} images in {seconds:.0f} s, {len(recorded)} events; {follower.connections} connections, of which "
        f"{cuts} were cut and {follower.lost} were lost with the process: "
        f"gaps {found.gaps}, repeats {found.repeats}, images in another order {found.disorder}"
    )


async def _idle(cluster: LocalCluster, number: int) -> None:
    """Open streams, and measure what they cost while nothing happens, and one event."""
    process: psutil.Process = cluster.api.process
    async with client(cluster.api.url) as http:
        await http.get("/events")
        _, port = cluster.api.url.rsplit(":", 1)
        before = process.memory_info().rss
        streams = [await _open(int(port)) for _ in range(number)]
        memory = process.memory_info().rss - before
        busy, began = _seconds(process), time.perf_counter()
        await asyncio.sleep(_IDLE_SECONDS)
        share = (_seconds(process) - busy) / (time.perf_counter() - began)
        heard = [asyncio.create_task(_heard(reader)) for reader, _ in streams]
        began = time.perf_counter()
        await upload(http, _IMAGE)
        waited = [at - began for at in await asyncio.gather(*heard)]
    for _, writer in streams:
        writer.transport.abort()
    print(
        f"{number} idle streams: {memory / number / _KILOBYTE:.1f} KB each ({memory / _KILOBYTE**2:.0f} MB), "
        f"{share:.1%} of a processor; an event reached them {statistics.median(waited) * 1000:.0f} ms (median), "
        f"{max(waited) * 1000:.0f} ms (last) after its upload was sent"
    )


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_REQUEST)
    await reader.readuntil(b"retry: ")
    return reader, writer


async def _heard(reader: asyncio.StreamReader) -> float:
    """Returns when the next event has arrived."""
    await reader.readuntil(b"event: image.accepted")
    return time.perf_counter()


def _seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    main()
