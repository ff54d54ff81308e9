"""A client that costs little: it shares the processors with what it measures.

In a process of its own (``python -m benchmarks.service.load``) it reads what to do as one line of JSON, answers
``ready``, waits for a line, uploads, and writes what it saw as JSON. Requests are made once and sent as they are, over
connections that are kept; of an answer it reads no more than the status and the id.
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
_PIECE: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to upload."""

    url: str
    file: str
    clients: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload that was accepted."""

    id: UUID
    begun: float
    """The time of its first byte."""
    answered: float
    """Seconds from there to the whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the clients saw."""

    uploads: tuple[Upload, ...]
    cpu: float
    """Seconds of processor time that they took."""


class Refused(Exception):
    """An upload was not accepted."""


class Connection:
    """A kept connection to the API; one request at a time."""

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

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer to a request."""
        await self._loop.sock_sendall(self._socket, request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += await self._piece()
        head = bytes(received[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(received) < end + 4 + length:
            received += await self._piece()
        return int(head[9:12]), bytes(received[end + 4 :])

    async def upload(self, request: bytes) -> Upload:
        """Upload a file.

        Raises:
            Refused: it was not accepted.
        """
        begun, clock = time.time(), time.perf_counter()
        status, body = await self.ask(request)
        answered = time.perf_counter() - clock
        if status != _ACCEPTED:
            raise Refused(f"{status}: {body.decode(errors='replace')}")
        return Upload(id=UUID(json.loads(body)["id"]), begun=begun, answered=answered)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    async def _piece(self) -> bytes:
        piece = await self._loop.sock_recv(self._socket, _PIECE)
        if not piece:
            raise Refused("the connection was closed before the answer was complete")
        return piece


def post(content: bytes) -> bytes:
    """The request that uploads a file."""
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
    """The request for an image's status."""
    return f"GET /images/{image_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@asynccontextmanager
async def loading(job: Job) -> AsyncIterator[Callable[[], Awaitable[Loaded]]]:
    """A process of clients that are ready; to be told once to begin, which gives what they saw."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        if await process.stdout.readline() != b"ready\n":
            raise Refused("the clients did not start")

        async def begin() -> Loaded:
            told, _ = await process.communicate(b"\n")
            if not told:
                raise Refused("the clients gave up; what they met is above")
            return _loaded(json.loads(told))

        yield begin
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _loaded(told: dict[str, Any]) -> Loaded:
    uploads = (Upload(id=UUID(image), begun=begun, answered=answered) for image, begun, answered in told["uploads"])
    return Loaded(uploads=tuple(uploads), cpu=told["cpu"])


async def _run(job: Job, content: bytes) -> None:
    request = post(content)
    connections = [await Connection.open(job.url) for _ in range(job.clients)]
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = iter(range(job.images))
    uploads: list[Upload] = []

    async def one(connection: Connection) -> None:
        for _ in numbers:
            uploads.append(await connection.upload(request))  # noqa: PERF401 — all clients add to one list

    processor = time.process_time()
    async with asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(one(connection))
    processor = time.process_time() - processor
    for connection in connections:
        connection.close()
    told = [[str(each.id), each.begun, each.answered] for each in uploads]
    print(json.dumps({"uploads": told, "cpu": processor}))


def main() -> None:
    """Do the job that standard input names."""
    job = Job(**json.loads(sys.stdin.readline()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(job, Path(job.file).read_bytes()))


if __name__ == "__main__":
    main()
