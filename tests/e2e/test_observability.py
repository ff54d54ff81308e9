"""The service as Prometheus sees it, by the dashboard and the alerts in ``deploy``."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import aio_pika
import httpx
import pytest
from sqlalchemy import text

from tests.support.images import encoded, gradient
from tests.support.plans import superuser
from tests.support.processes import free_port
from tests.support.servers import PostgresServer, PrometheusServer, RabbitMQServer
from tests.support.service import SWIFT, Api, Worker, client, finished, status, upload, upload_all
from tests.support.waiting import eventually
from tests.support.watched import AT_ONCE, firing, panels, prometheus, rules, values

PHOTO = encoded(gradient(1600, 1200), "JPEG")
POSTER = encoded(gradient(1600, 1200), "PNG")
CUT_OFF = PHOTO[: len(PHOTO) // 2]
LIMIT = 30.0
ALL = {rule["alert"] for rule in rules()}


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Watched:
    """API and worker, the servers behind them, and the Prometheus that watches."""

    def __init__(self, folder: Path, running: ExitStack, env: dict[str, str]) -> None:
        self._folder = folder
        self._running = running
        self._ports = {"api": free_port(), "worker": free_port()}
        self._env = env | SWIFT | AT_ONCE | {"STORAGE_PATH": str(folder / "storage")}
        self.storage = folder / "storage"
        self.fired: set[str] = set()

    def start(self, *, max_backlog: int = 1000) -> None:
        env = self._env | {"METRICS_PORT": str(self._ports["api"]), "MAX_BACKLOG": str(max_backlog)}
        self.api = self._running.enter_context(Api(self._folder, env))
        self.worker = self.start_worker()
        self.prometheus: PrometheusServer = self._running.enter_context(
            prometheus({f"image-service-{name}": [port] for name, port in self._ports.items()})
        )

    def start_worker(self, name: str = "worker", **settings: str) -> Worker:
        env = self._env | {"METRICS_PORT": str(self._ports["worker"])} | settings
        return self._running.enter_context(Worker(self._folder, env, name))

    async def alarm(self, *names: str) -> None:
        """Wait until these alerts fire."""

        def they_fire() -> bool:
            now = firing(self.prometheus)
            self.fired |= now
            return set(names) <= now

        await eventually(they_fire, timeout=LIMIT, interval=0.2)

    async def all_clear(self) -> None:
        """Wait until no alert fires."""
        await eventually(lambda: not firing(self.prometheus), timeout=LIMIT, interval=0.2)


@pytest.fixture
def watched(
    running: ExitStack, tmp_path: Path, own_postgres: PostgresServer, own_rabbitmq: RabbitMQServer, postgres_template: str
) -> Watched:
    raise NotImplementedError
