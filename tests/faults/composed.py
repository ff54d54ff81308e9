"""The program as these tests compose it: every effect that it has on anything outside can be its last.

    python -m tests.faults.composed api|worker|standalone …

It is the program itself, started by its own command line, with the adapters' methods, the repositories' queries and the
system calls behind them each in a wrapper that looks whether a point is reached (see ``points``), and notes what the
storage's disk keeps (see ``powerloss``). Nothing in the product knows of it.

In the environment: ``FAULT_POINTS``, what is to happen; ``FAULT_FOLDER``, where it is noted; ``FAULT_DISK``, the folder
that stands for the disk, with the storage in it; ``FAULT_JOURNAL``, where is noted what the disk keeps.
"""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aio_pika.message import IncomingMessage
from aiormq.channel import Channel

from image_service.cli import main as image_service
from image_service.database import Database, Repositories, SingleStatements
from image_service.errors import DatabaseUnavailable, Outage, QueueUnavailable, StorageUnavailable
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.pool import RenderPool
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQQueue
from image_service.storage.local import LocalStorage
from tests.faults import points
from tests.faults.points import Points, When
from tests.faults.powerloss import Journal

EFFECTS: tuple[tuple[type, str, str, type[Exception]], ...] = (
    (LocalStorage, "adopt", "adopt", StorageUnavailable),
    (LocalStorage, "local_path", "local_path", StorageUnavailable),
    (LocalStorage, "delete", "delete", StorageUnavailable),
    (RabbitMQQueue, "publish", "publish", QueueUnavailable),
    (EmbeddedQueue, "publish", "publish", QueueUnavailable),
    (RenderPool, "render", "render", Outage),
    # Two that no port shows: the broker's answer to a message that was published, and ours to one that was consumed.
    (Channel, "_on_confirm_frame", "confirm", ConnectionError),
    (IncomingMessage, "ack", "ack", ConnectionError),
)
"""Methods to be awaited: where, which, the effect's name, and the port's word for "it is away"."""

KINDS = {"originals": "original", "thumbnails": "thumbnail"}


def main() -> None:
    """Run the program."""
    chosen = Points(points.decode(os.environ.get("FAULT_POINTS", "[]")), Path(os.environ["FAULT_FOLDER"]))
    for owner, method, effect, outage in EFFECTS:
        setattr(owner, method, _watched(getattr(owner, method), chosen, effect, outage))
    _watch_inspector(chosen)
    _watch_database(chosen)
    _watch_disk(chosen, Path(os.environ["FAULT_DISK"]).resolve(), Journal(Path(os.environ["FAULT_JOURNAL"])))
    image_service()


def _watched(
    original: Callable[..., Awaitable[object]], chosen: Points, effect: str, outage: type[Exception]
) -> Callable[..., Awaitable[object]]:
    async def watched(*args: object, **options: object) -> object:
        await chosen.meet(When.BEFORE, effect, outage)
        answer = await original(*args, **options)
        await chosen.meet(When.AFTER, effect, outage)
        return answer

    return watched


def _watch_inspector(chosen: Points) -> None:
    """``sniff``: the first bytes of an upload are there; ``inspect``: all are, in a file that is not synced."""
    for effect in ("sniff", "inspect"):
        original = getattr(HeaderInspector, effect)
        setattr(HeaderInspector, effect, _watched_in_thread(original, chosen, effect))


def _watched_in_thread(original: Callable[..., object], chosen: Points, effect: str) -> Callable[..., object]:
    def watched(*args: object) -> object:
        chosen.meet_in_thread(When.BEFORE, effect, OSError)
        answer = original(*args)
        chosen.meet_in_thread(When.AFTER, effect, OSError)
        return answer

    return watched


def _watch_database(chosen: Points) -> None:
    """Every query under its own name, ``add``, and the end of its transaction, ``add.commit``.

    A query that is committed with its statement has no moment between the two.
    """
    transaction, statement = Database.transaction, Database.statement

    @asynccontextmanager
    async def watched_transaction(self: Database) -> AsyncIterator[Repositories]:
        asked: list[str] = []
        async with transaction(self) as repositories:
            _watch_repositories(repositories, chosen, asked)
            yield repositories
            for query in asked:
                await chosen.meet(When.BEFORE, f"{query}.commit", DatabaseUnavailable)
        for query in asked:
            await chosen.meet(When.AFTER, f"{query}.commit", DatabaseUnavailable)

    @asynccontextmanager
    async def watched_statement(self: Database) -> AsyncIterator[SingleStatements]:
        async with statement(self) as repositories:
            if self.commits_at_once:
                _watch_repositories(repositories, chosen, None)
            yield repositories

    Database.transaction = watched_transaction  # type: ignore[method-assign]  # that is the point
    Database.statement = watched_statement  # type: ignore[method-assign]  # the same


def _watch_repositories(repositories: SingleStatements, chosen: Points, asked: list[str] | None) -> None:
    for name, repository in vars(repositories).items():
        setattr(repositories, name, _WatchedRepository(repository, chosen, asked))


class _WatchedRepository:
    """Notes what is asked for in a transaction; without one, a query and its commit are the same."""

    def __init__(self, repository: object, chosen: Points, asked: list[str] | None) -> None:
        self._repository = repository
        self._chosen = chosen
        self._asked = asked

    def __getattr__(self, query: str) -> Callable[..., Awaitable[object]]:
        original = getattr(self._repository, query)
        if self._asked is None:
            return _committed(original, self._chosen, query)
        self._asked.append(query)
        return _watched(original, self._chosen, query, DatabaseUnavailable)


def _committed(
    original: Callable[..., Awaitable[object]], chosen: Points, query: str
) -> Callable[..., Awaitable[object]]:
    async def watched(*args: object, **options: object) -> object:
        await chosen.meet(When.BEFORE, query, DatabaseUnavailable)
        await chosen.meet(When.BEFORE, f"{query}.commit", DatabaseUnavailable)
        answer = await original(*args, **options)
        await chosen.meet(When.AFTER, f"{query}.commit", DatabaseUnavailable)
        return answer

    return watched


def _watch_disk(chosen: Points, disk: Path, journal: Journal) -> None:
    """``fsync`` and ``rename``, wherever in the adapter they are called."""
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(disk):
            fsync(descriptor)
            return
        effect = _sync_of(path, disk / "storage", is_folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
        chosen.meet_in_thread(When.BEFORE, effect, OSError)
        note = journal.look(path)
        fsync(descriptor)
        journal.write(note)
        chosen.meet_in_thread(When.AFTER, effect, OSError)

    def watched_rename(source: Path, target: Path, **options: Any) -> None:  # noqa: ANN401  (whatever else it takes)
        if not target.resolve().is_relative_to(disk):
            rename(source, target, **options)
            return
        effect = f"{KINDS[target.parts[-3]]}.rename"
        chosen.meet_in_thread(When.BEFORE, effect, OSError)
        rename(source, target, **options)
        chosen.meet_in_thread(When.AFTER, effect, OSError)

    os.fsync = watched_fsync  # type: ignore[assignment]  # it takes files, too, which nobody gives it here
    os.rename = watched_rename  # type: ignore[assignment]  # the same for other kinds of paths


def _sync_of(path: Path, storage: Path, *, is_folder: bool) -> str:
    """The name of a sync: of a file, its shard folder, the folder of shard folders, the storage, or the disk."""
    if not path.is_relative_to(storage):
        return "disk.sync"
    parts = path.relative_to(storage).parts
    if not parts:
        return "storage.sync"
    if not is_folder:
        return f"{KINDS[parts[0]]}.sync"
    return f"{KINDS[parts[0]]}.sync-{('shards', 'shard')[len(parts) - 1]}"


if __name__ == "__main__":
    main()
