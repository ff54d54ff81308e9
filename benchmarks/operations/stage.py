"""A whole service of its own: PostgreSQL, RabbitMQ, an API and workers, each in processes that end with this one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from tests.support.servers import PostgresServer, RabbitMQServer, new_folder
from tests.support.service import Api, Worker

from image_service.database.migrations import upgrade


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What plays, and how to reach it."""

    folder: Path
    env: dict[str, str]
    postgres: PostgresServer
    rabbitmq: RabbitMQServer
    api: Api
    running: ExitStack

    def worker(self, name: str) -> Worker:
        """Start a worker, which ends with the stage."""
        return self.running.enter_context(Worker(self.folder, self.env, name))

    def file(self, key: str) -> Path:
        """Where the service stores what has this key."""
        return self.folder / "storage" / key


@contextmanager
def stage(**settings: str) -> Iterator[Stage]:
    """Start everything but the workers; the settings by their environment names."""
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
        yield Stage(folder=folder, env=env, postgres=postgres, rabbitmq=rabbitmq, api=api, running=running)
