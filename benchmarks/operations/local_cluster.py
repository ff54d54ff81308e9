"""A private service: PostgreSQL, RabbitMQ, an API and workers, in processes that end with this one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from harness.servers import PostgresServer, RabbitMQServer, new_folder
from harness.service import Api, Worker
from image_service.database.migrations import upgrade


@dataclass(frozen=True, kw_only=True)
class LocalCluster:
    """The running servers and processes."""

    folder: Path
    env: dict[str, str]
    postgres: PostgresServer
    rabbitmq: RabbitMQServer
    api: Api
    running: ExitStack

    def worker(self, name: str) -> Worker:
        """Start a worker, which ends with the cluster."""
        return self.running.enter_context(Worker(self.folder, self.env, name))

    def file(self, key: str) -> Path:
        """Returns the path of the file with this key."""
        return self.folder / "storage" / key


@contextmanager
def local_cluster(**settings: str) -> Iterator[LocalCluster]:
    """Start everything except workers; ``settings`` are environment variables."""
    with ExitStack() as running:
        postgres = running.enter_context(PostgresServer(new_folder()))
        rabbitmq = running.enter_context(RabbitMQServer(new_folder()))
        folder = new_folder()
        running.callback(rmtree, folder)
        env = {
            "DATABASE_URL": postgres.url,
            "RABBITMQ_URL": rabbitmq.url,
            "STORAGE_PATH": str(folder / "storage"),
            "LOG_LEVEL": "INFO",
            **settings,
        }
        upgrade(postgres.url)
        api = running.enter_context(Api(folder, env))
        yield LocalCluster(folder=folder, env=env, postgres=postgres, rabbitmq=rabbitmq, api=api, running=running)
