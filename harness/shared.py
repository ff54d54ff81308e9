"""One server of each kind (PostgreSQL, RabbitMQ, S3, GCS, Azure, fork server) for all processes of a test run.

The main process starts each server when a test first requests it and stops them after the last test. Worker processes
request URLs through a socket, whose port is in their environment.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

from harness.azure import AzuriteServer
from harness.gcs import FakeGcsServer
from harness.processes import ServerError
from harness.s3 import SeaweedServer
from harness.servers import ForkServer, PostgresServer, PrivateServer, RabbitMQServer, new_folder

PORT = "TEST_SHARED_SERVERS_PORT"
KINDS: dict[str, Callable[[Path, int], PrivateServer]] = {
    "postgresql": lambda folder, _: PostgresServer(folder, fsync=False),
    "rabbitmq": lambda folder, workers: RabbitMQServer(folder, virtual_hosts=virtual_hosts(workers)),
    "s3": lambda folder, _: SeaweedServer(folder),
    "gcs": lambda folder, _: FakeGcsServer(folder),
    "azure": lambda folder, _: AzuriteServer(folder),
    "fork-server": lambda folder, _: ForkServer(folder, modules=["tests.faults.instrumented"]),
}
"""Each makes a server in a folder for so many worker processes."""
VARIABLES = {
    "postgresql": "TEST_DATABASE_URL",
    "rabbitmq": "TEST_RABBITMQ_URL",
    "s3": "TEST_S3_URL",
    "gcs": "TEST_GCS_URL",
    "azure": "TEST_AZURE_URL",
}
"""Environment variables that name a server to use instead."""


def virtual_hosts(workers: int) -> tuple[str, ...]:
    """Return the names of the shared broker's virtual hosts: one for each worker process of pytest-xdist."""
    return tuple(f"gw{number}" for number in range(workers))


def shared_url(kind: str) -> str:
    """Return the URL of the run's server of that kind; start it if necessary."""
    with socket.create_connection(("127.0.0.1", int(os.environ[PORT]))) as connection:
        connection.sendall(f"{kind}\n".encode())
        with connection.makefile() as answer:
            verdict, _, text = answer.read().partition(" ")
    if verdict != "ok":
        raise ServerError(text)
    return text


class SharedServers:
    """Starts the run's servers on demand; owned by the main process.

    Args:
        workers: The worker processes that run tests.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._servers: dict[str, PrivateServer] = {}
        self._locks = {kind: threading.Lock() for kind in KINDS}
        self._starting: list[threading.Thread] = []
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        os.environ[PORT] = str(self._listener.server_address[1])

    def url(self, kind: str) -> str:
        """Return the URL of a server; start it if necessary."""
        with self._locks[kind]:
            if kind not in self._servers:
                self._servers[kind] = KINDS[kind](new_folder(), self._workers).__enter__()  # closed by ``close``
            return self._servers[kind].url

    def start_all(self) -> None:
        """Start all servers that no environment variable replaces, in the background."""
        for kind in KINDS:
            if VARIABLES.get(kind, "") not in os.environ:
                thread = threading.Thread(target=self._try_to_start, args=(kind,))
                thread.start()
                self._starting.append(thread)

    def _try_to_start(self, kind: str) -> None:
        with suppress(ServerError):  # reported to the first test that needs the server, which tries again
            self.url(kind)

    def close(self) -> None:
        """Stop all servers and remove their folders."""
        for thread in self._starting:
            thread.join()
        del os.environ[PORT]
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        for server in self._servers.values():
            server.close()


class _Listener(ThreadingTCPServer):
    def __init__(self, servers: SharedServers) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.servers = servers


class _Handler(StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        kind = self.rfile.readline().decode().strip()
        try:
            answer = f"ok {self.server.servers.url(kind)}"
        except ServerError as error:
            answer = f"failed {error}"
        self.wfile.write(answer.encode())
