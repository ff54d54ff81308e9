"""Load generator with little processor time of its own, since it shares the processors with the service.

In a process of its own (``python -m benchmarks.service.load``) it reads a job as one line of JSON, prints ``ready``,
waits for another line, uploads, and prints its measurements as JSON. The request is encoded once and sent over
persistent connections; of a response only the status and the image's id are parsed.
"""

import asyncio
import json
import socket
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID

import uvloop

_BOUNDARY: Final = b"f4c1c4de0e7b4b8c"
_ACCEPTED: Final = 202
_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The uploads to make."""

    url: str
    file: str
    clients: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An accepted upload."""

    id: UUID
    begun: float
    """Time when its first byte was sent."""
    answered: float
    """Seconds from then until the whole response was received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Measurements of a job."""

    uploads: tuple[Upload, ...]
    cpu: float
    """Seconds of processor time that the clients used."""


class LoadError(Exception):
    """An upload was not accepted, or the clients failed."""


class Connection:
    """A persistent connection to the API, for one request at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect."""
        address = urlsplit(url)
        connected = socket.socket()
        connected.setblocking(False)  # noqa: FBT003 — the standard library's signature
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connected, (address.hostname, address.port))
        return cls(connected)

    async def request(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; returns the status and the body of the response."""
        await self._loop.sock_sendall(self._socket, request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += await self._receive()
        head = bytes(received[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(received) < end + 4 + length:
            received += await self._receive()
        return int(head[9:12]), bytes(received[end + 4 :])

    async def upload(self, request: bytes) -> Upload:
        """Upload a file.

        Raises:
            LoadError: It was not accepted.
        """
        begun, clock = time.time(), time.perf_counter()
        status, body = await self.request(request)
        answered = time.perf_counter() - clock
        if status != _ACCEPTED:
            raise LoadError(f"{status}: {body.decode(errors='replace')}")
        return Upload(id=UUID(json.loads(body)["id"]), begun=begun, answered=answered)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    async def _receive(self) -> bytes:
        chunk = await self._loop.sock_recv(self._socket, _CHUNK)
        if not chunk:
            raise LoadError("the connection was closed before the response was complete")
        return chunk


def post(content: bytes) -> bytes:
    """Returns the request that uploads a file."""
    body = (
        b"--%b\r\nContent-Disposition: form-data; name=file; filename=photo.jpg\r\n"
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (_BOUNDARY, content, _BOUNDARY)
    )
    head = (
        b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
        b"Content-Length: %d\r\n\r\n" % (_BOUNDARY, len(body))
    )
    return head + body


def get(image_id: UUID) -> bytes:
    """Returns the request for an image's status."""
    return f"GET /images/{image_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@asynccontextmanager
async def load(job: Job) -> AsyncIterator[Callable[[], Awaitable[LoadResult]]]:
    """Starts a process of connected clients; yields the function that starts the uploads and awaits their result."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        if await process.stdout.readline() != b"ready\n":
            raise LoadError("the clients did not start")

        async def start() -> LoadResult:
            output, _ = await process.communicate(b"\n")
            if not output:
                raise LoadError("the clients failed; their error is above")
            return _result(json.loads(output))

        yield start
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _result(output: dict[str, Any]) -> LoadResult:
    uploads = (Upload(id=UUID(image), begun=begun, answered=answered) for image, begun, answered in output["uploads"])
    return LoadResult(uploads=tuple(uploads), cpu=output["cpu"])


async def _run(job: Job, content: bytes) -> None:
    request = post(content)
    connections = [await Connection.open(job.url) for _ in range(job.clients)]
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = iter(range(job.images))
    uploads: list[Upload] = []

    async def client(connection: Connection) -> None:
        for _ in numbers:
            uploads.append(await connection.upload(request))  # noqa: PERF401 — all clients add to one list

    processor = time.process_time()
    async with asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(client(connection))
    processor = time.process_time() - processor
    for connection in connections:
        connection.close()
    measured = [[str(each.id), each.begun, each.answered] for each in uploads]
    print(json.dumps({"uploads": measured, "cpu": processor}))


def main() -> None:
    """Run the job that is read from standard input."""
    job = Job(**json.loads(sys.stdin.readline()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(job, Path(job.file).read_bytes()))


if __name__ == "__main__":
    main()
