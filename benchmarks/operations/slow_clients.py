"""Measures good uploads while 900 connections of other clients trickle a byte at a time, send half a head, or nothing.

    make bench-slow-clients                or: python -m benchmarks.operations.slow_clients --seconds 120 [--nginx]
                                               [--first BYTES]

The standalone service runs in a process of its own with the default settings; with ``--nginx`` behind nginx, with the
configuration of docs/scaling.md. One upload of 100 KB is sent each second: alone, beside the slow clients, and alone
again. With ``--first`` an upload that trickles sends so many bytes at once before. A slow client connects again as soon
as its connection is closed. Everything is on loopback.
"""

import argparse
import asyncio
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import psutil

from harness.images import encoded, noise
from harness.nginx import examples, nginx
from harness.servers import new_folder
from harness.service import Standalone, client

_EACH: Final = 300
"""Connections of each kind."""
_PAUSE: Final = 20.0
"""Seconds between two bytes of an upload that trickles."""
_ALONE: Final = 15
"""Uploads before and after."""
_RECONNECT: Final = 0.1
_MEGABYTE: Final = 1024 * 1024
_SCALING: Final = Path(__file__).parents[2] / "docs" / "scaling.md"
_UPLOAD_HEAD: Final = (
    b"POST /images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\x89PNG\r\n\x1a\n'
)


@dataclass
class Phase:
    """What was measured in a part of the run."""

    waited: list[float] = field(default_factory=list)
    """Seconds until the answer of each upload."""
    answers: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    """Largest resident memory of the service in bytes."""
    descriptors: int = 0
    """Most open file descriptors of the service."""

    def line(self, name: str) -> str:
        """Return the figures as text."""
        p50, p95 = (statistics.quantiles(self.waited, n=100, method="inclusive")[at] * 1000 for at in (49, 94))
        answers = ", ".join(f"{count} x {answer}" for answer, count in self.answers.items())
        return (
            f"{name:18} {answers}; p50 {p50:.0f} ms, p95 {p95:.0f} ms; "
            f"memory {self.memory / _MEGABYTE:.0f} MB, descriptors {self.descriptors}"
        )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=120, help="time beside the slow clients (default 120)")
    options.add_argument("--nginx", action="store_true", help="put nginx in front, as in docs/scaling.md")
    options.add_argument("--first", type=int, default=0, help="bytes that a slow upload sends at once (default: 0)")
    given = options.parse_args()
    folder = new_folder()
    try:
        with Standalone(folder) as service:
            if given.nginx:
                with _nginx(service.url) as url:
                    asyncio.run(_run(url, service.process, given.seconds, given.first))
            else:
                asyncio.run(_run(service.url, service.process, given.seconds, given.first))
    finally:
        shutil.rmtree(folder)


async def _run(url: str, service: psutil.Process, seconds: int, first: int) -> None:
    photo = encoded(noise(300, 225), "JPEG", quality=95)
    phases = {name: Phase() for name in ("alone", "slow clients", "alone again")}
    closed: Counter[str] = Counter()
    await _measure(url, service, photo, phases["alone"], _ALONE)
    port = httpx.URL(url).port or 80
    kinds: dict[str, Talk] = {"trickling": partial(_trickle, bytes(first)), "idle": _idle, "half head": _half_head}
    slow = [
        asyncio.create_task(_reconnecting(name, talk, port, closed))
        for name, talk in kinds.items()
        for _ in range(_EACH)
    ]
    try:
        await _measure(url, service, photo, phases["slow clients"], seconds)
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    await _measure(url, service, photo, phases["alone again"], _ALONE)
    for name, phase in phases.items():
        print(phase.line(name))
    print(
        f"load average {os.getloadavg()[0]:.1f}; connections that were closed:",
        ", ".join(f"{kind} {count}" for kind, count in closed.items()),
    )


async def _measure(url: str, service: psutil.Process, photo: bytes, phase: Phase, uploads: int) -> None:
    """Send an upload each second, whether or not the one before has been answered."""

    async def one() -> None:
        began = time.perf_counter()
        try:
            async with client(url) as http:
                answer = str((await http.post("/images", files={"file": ("photo.jpg", photo)})).status_code)
        except httpx.TransportError as error:
            answer = type(error).__name__
        phase.waited.append(time.perf_counter() - began)
        phase.answers[answer] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(uploads):
            tasks.create_task(one())
            await asyncio.sleep(1)
            phase.memory = max(phase.memory, service.memory_info().rss)
            phase.descriptors = max(phase.descriptors, service.num_fds())


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


async def _reconnecting(name: str, talk: Talk, port: int, closed: Counter[str]) -> None:
    """Connect and talk, again and again: it ends when it is cancelled."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                with suppress(OSError):  # a reset closes it as well
                    await talk(reader, writer)
                closed[name] += 1
            finally:
                writer.transport.abort()
        await asyncio.sleep(_RECONNECT)


async def _trickle(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_UPLOAD_HEAD + first)
    for _ in itertools.count():
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await reader.read()
                return
        writer.write(b"x")


async def _idle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _half_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: local")
    await reader.read()


@contextmanager
def _nginx(url: str) -> Iterator[str]:
    """Run nginx with the configuration of docs/scaling.md in front of the service; yields its address."""
    with tempfile.TemporaryDirectory() as folder, nginx(url, examples()[0], Path(folder)) as address:
        yield address


if __name__ == "__main__":
    main()
