"""The service under test for random faults: its processes, a database with a standby, a broker and a disk.

All connections between them go through proxies, one for each role and server. Most methods block.
"""

import asyncio
import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from harness.processes import SOURCE, free_port
from harness.proxy import Proxy
from harness.replication import ReplicatedPostgres
from harness.servers import RabbitMQServer, new_folder
from harness.service import FAST_SETTINGS, PROGRAM, Service
from image_service.database.migrations import upgrade
from tests.faults import short_schedule
from tests.faults.disk import Disk
from tests.faults.evidence import Running
from tests.faults.pictures import POISON_LIMIT, POISON_PIXELS
from tests.faults.receivers import EXCHANGE
from tests.faults.recipes import write_recipes

PROCESS_FAULTS = Path(__file__).with_name("process_faults")
DECODERS = 2
"""Decoder processes of each worker: one for any image, one for small images."""
GRACE = 10.0
"""ORPHAN_GRACE in seconds: longer than any upload takes from storing its file to committing its row."""
LEASE = float(FAST_SETTINGS["LEASE_SECONDS"])
SETTINGS = {
    **FAST_SETTINGS,
    "ORPHAN_GRACE": str(GRACE),
    "SWEEP_INTERVAL": "2",
    "DECODE_SLOTS": "1",
    "DECODE_CPU_SECONDS": str(POISON_LIMIT),
    "MAX_PIXELS": str(POISON_PIXELS),
    "MAX_FILE_SIZE": str(20 << 20),
    "DRAIN_TIMEOUT": "5",
    "EVENTS_EXCHANGE": EXCHANGE,
    "OUTBOUND_ALLOW": "127.0.0.0/8",
    "WEBHOOK_TIMEOUT": "1",
    "PYTHONPATH": f"{PROCESS_FAULTS}:{SOURCE}:{SOURCE.parent}",
}
APIS, WORKERS = ("api-1", "api-2"), ("worker-1", "worker-2", "worker-3")
WITH_SHORT_SCHEDULE = (*PROGRAM[:-1], short_schedule.__name__)
OLD_WORKER = "worker-old"
"""A worker of another version."""


class Cluster:
    """All servers and processes of one run."""

    def __init__(
        self,
        folder: Path,
        postgres: ReplicatedPostgres,
        rabbitmq: RabbitMQServer,
        disk: Disk,
        beside: str | None,
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.rabbitmq = rabbitmq
        self.disk = disk
        self.links = {
            f"{role}-{server}": Proxy.before(url)
            for role in ("api", "worker")
            for server, url in (("broker", rabbitmq.url), ("database", postgres.url))
        }
        """By client and server: ``api-broker``."""
        self.urls: dict[str, str] = {}
        self.services: dict[str, Service] = {}
        self.workers = WORKERS if beside is None else (*WORKERS, OLD_WORKER)
        self._recipes = write_recipes(folder)
        self._old_source = None if beside is None else _source_of(beside, folder)

    @classmethod
    @asynccontextmanager
    async def running(cls, beside: str | None = None) -> AsyncIterator["Cluster"]:
        """Start everything; stop and remove everything at the end.

        Args:
            beside: A commit of this repository; one more worker runs its version.
        """
        folder = new_folder()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, shutil.rmtree, folder, ignore_errors=True)
            postgres = ReplicatedPostgres(fsync=False)  # processes are killed here, not machines
            rabbitmq = RabbitMQServer(new_folder())
            disk = Disk(folder / "disk")
            cluster = cls(folder, postgres, rabbitmq, disk, beside)
            for server in (postgres, rabbitmq, disk):
                stack.push_async_callback(asyncio.to_thread, server.close)
            await asyncio.gather(*(asyncio.to_thread(server.start) for server in (postgres, rabbitmq, disk)))
            await asyncio.to_thread(upgrade, postgres.url)
            for proxy in cluster.links.values():
                await stack.enter_async_context(proxy)
            cluster._add_services()
            for service in cluster.services.values():
                stack.push_async_callback(asyncio.to_thread, service.kill)
            await asyncio.gather(*(asyncio.to_thread(service.start) for service in cluster.services.values()))
            yield cluster

    def _add_services(self) -> None:
        for name in (*APIS, *self.workers):
            role = name.partition("-")[0]
            program = PROGRAM if name == OLD_WORKER else WITH_SHORT_SCHEDULE
            command: tuple[str | Path, ...] = (*program, role)
            if role == "api":
                port = free_port()
                self.urls[name] = f"http://127.0.0.1:{port}"
                command = (*command, "--host", "127.0.0.1", "--port", str(port))
            self.services[name] = Service(
                self.folder / name,
                *self.disk.entrance,
                *command,
                started=f'"{role} started"',
                env=self._environment(name, role),
            )

    def _environment(self, name: str, role: str) -> Mapping[str, str]:
        other_version = {"PYTHONPATH": f"{PROCESS_FAULTS}:{self._old_source}"} if name == OLD_WORKER else {}
        return {
            **SETTINGS,
            **other_version,
            "RECIPES_FILE": str(self._recipes),
            "DATABASE_URL": self.links[f"{role}-database"].url(self.postgres.url),
            "RABBITMQ_URL": self.links[f"{role}-broker"].url(self.rabbitmq.url),
            "STORAGE_PATH": str(self.disk.folder / "storage"),
            "LIVENESS_FILE": str(self.folder / name / "alive"),
            "PROCESS_FAULTS_FOLDER": str(self.folder / name),
        }

    @property
    def database_url(self) -> str:
        """The URL of the database on its current primary, which the service reaches through proxies only."""
        return self.postgres.url

    def lead_to_database(self, url: str) -> None:
        """Lead the service's new connections to the database to another server."""
        for name, link in self.links.items():
            if name.endswith("-database"):
                link.lead_to(url)

    def reset_database_connections(self) -> None:
        """Reset the service's open connections to the database."""
        for name, link in self.links.items():
            if name.endswith("-database"):
                link.reset_connections()

    @property
    def storage(self) -> Path:
        """The service's storage folder as a path of this process."""
        return self.disk.outside / "storage"

    def processes(self) -> list[Running]:
        """The service's processes."""
        return [
            Running(
                name=name,
                pid=service.process.pid,
                log=self.folder / name / "server.log",
                decoders=DECODERS if name in self.workers else 0,
            )
            for name, service in self.services.items()
        ]

    def set_process_fault(self, name: str, what: str, seconds: float) -> None:
        """Set a process's clock error or fsync delay; see ``process_faults``. Zero ends the fault."""
        (self.folder / name / what).write_text(str(seconds))


def _source_of(commit: str, folder: Path) -> Path:
    """Export the program as it was in a commit of this repository; return the folder to import it from.

    Raises:
        SystemExit: the commit is unknown here.
    """
    target = folder / "source" / "src"
    target.mkdir(parents=True)
    command = ("git", "-C", SOURCE.parent, "archive", "--format=tar", commit, "src")
    exported = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  (an argument of the developer's own)
    if exported.returncode:
        raise SystemExit(f"git cannot export the version to run beside:\n{exported.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(exported.stdout)) as files:
        files.extractall(target.parent, filter="data")
    return target
