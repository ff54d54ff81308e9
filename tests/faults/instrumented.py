"""The program with failpoints at every external effect.

    python -m tests.faults.instrumented api|worker|standalone …

The real program with its own command line. Adapter methods, repository queries and the system calls behind them are
wrapped: each wrapper runs the failpoints of its effect (see ``failpoints``) and records what has been synced to disk
(see ``powerloss``). The product contains no code for this.

Environment: ``FAULT_POINTS``, the failpoints; ``FAULT_FOLDER``, for their notices; ``FAULT_DISK``, the folder that
stands for the disk and contains the storage; ``FAULT_JOURNAL``, for the journal of synced data.
"""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aio_pika.message import IncomingMessage
from aiormq.channel import Channel
from sqlalchemy import Connection

from image_service.cli import main as image_service
from image_service.database import Database, Repositories, SingleStatements
from image_service.database.sqlite_writer import QueryUnit, Unit, Writer
from image_service.errors import DatabaseUnavailable, Outage, QueueUnavailable, StorageUnavailable
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.isolation.pool import RenderPool
from image_service.outbound.client import GuardedClient
from image_service.ports import OutboundFailed
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQExchange, RabbitMQQueue
from image_service.queue.rabbitmq.signal import RabbitMQSignal
from image_service.queue.signal import LocalSignal
from image_service.storage.local import LocalStorage
from image_service.storage.probe import PROBES
from tests.faults import failpoints
from tests.faults.failpoints import Failpoints, When
from tests.faults.powerloss import Journal
from tests.faults.short_schedule import shorten

EFFECTS: tuple[tuple[type, str, str, type[Exception]], ...] = (
    (LocalStorage, "adopt", "adopt", StorageUnavailable),
    (LocalStorage, "local_path", "local_path", StorageUnavailable),
    (LocalStorage, "delete", "delete", StorageUnavailable),
    (RabbitMQQueue, "publish", "publish", QueueUnavailable),
    (EmbeddedQueue, "publish", "publish", QueueUnavailable),
    (RenderPool, "render", "render", Outage),
    (GuardedClient, "post", "post", OutboundFailed),
    (RabbitMQExchange, "publish", "exchange.publish", QueueUnavailable),
    # Two that no port shows: the broker's confirm of a published message, and our acknowledgement of a consumed one.
    (Channel, "_on_confirm_frame", "confirm", ConnectionError),
    (IncomingMessage, "ack", "ack", ConnectionError),
)
"""Coroutine methods: class, method, name of the effect, and the exception for an outage."""

PREFIXED = frozenset({"events", "deliveries", "webhooks"})
"""Repositories by which the effects of their queries are named, too: ``deliveries.claim``."""
OWNERS = {"EventStatements": "events.", "DeliveryStatements": "deliveries.", "WebhookStatements": "webhooks."}
"""The same for their classes."""
KINDS = {"originals": "original", "thumbnails": "thumbnail"}


def main() -> None:
    """Run the program."""
    shorten()
    active = Failpoints(failpoints.decode(os.environ.get("FAULT_POINTS", "[]")), Path(os.environ["FAULT_FOLDER"]))
    for owner, method, effect, outage in EFFECTS:
        setattr(owner, method, _with_failpoints(getattr(owner, method), active, effect, outage))
    _instrument_inspector(active)
    _instrument_signal(active)
    _instrument_database(active)
    _instrument_disk(active, Path(os.environ["FAULT_DISK"]).resolve(), Journal(Path(os.environ["FAULT_JOURNAL"])))
    image_service()


def _with_failpoints(
    original: Callable[..., Awaitable[object]], active: Failpoints, effect: str, outage: type[Exception]
) -> Callable[..., Awaitable[object]]:
    async def wrapper(*args: object, **options: object) -> object:
        if effect == "delete" and not args[1]:
            return await original(*args, **options)  # the sweeper found nothing: no keys, no effect
        await active.run(When.BEFORE, effect, outage)
        answer = await original(*args, **options)
        await active.run(When.AFTER, effect, outage)
        return answer

    return wrapper


def _instrument_inspector(active: Failpoints) -> None:
    """``sniff``: the first bytes of an upload have arrived; ``inspect``: all have, in a file that is not synced."""
    for effect in ("sniff", "inspect"):
        original = getattr(HeaderInspector, effect)
        setattr(HeaderInspector, effect, _with_failpoints_in_thread(original, active, effect))


def _instrument_signal(active: Failpoints) -> None:
    """``signal``: the processes are notified of new events."""
    for owner in (LocalSignal, RabbitMQSignal):

        def notify(self: LocalSignal, owner: type = owner, original: Callable[..., None] = owner.notify) -> None:
            points = active if type(self) is owner else Failpoints((), Path())
            points.run_in_thread(When.BEFORE, "signal", RuntimeError)
            original(self)
            points.run_in_thread(When.AFTER, "signal", RuntimeError)

        owner.notify = notify  # type: ignore[method-assign]  # instrumentation


def _with_failpoints_in_thread(
    original: Callable[..., object], active: Failpoints, effect: str
) -> Callable[..., object]:
    def wrapper(*args: object) -> object:
        active.run_in_thread(When.BEFORE, effect, OSError)
        answer = original(*args)
        active.run_in_thread(When.AFTER, effect, OSError)
        return answer

    return wrapper


def _instrument_database(active: Failpoints) -> None:
    """Name effects after queries, ``add``, and the commit of their transaction, ``add.commit``.

    A query that PostgreSQL commits with its statement has nothing between the two. On SQLite the thread that writes
    reaches what comes between, and a commit for several uploads at once is a ``group.commit`` too.
    """
    transaction, statement = Database.transaction, Database.statement

    @asynccontextmanager
    async def transaction_with_failpoints(self: Database) -> AsyncIterator[Repositories]:
        queries: list[str] = []
        async with transaction(self) as repositories:
            _instrument_repositories(repositories, active, queries)
            yield repositories
            for query in queries:
                await active.run(When.BEFORE, f"{query}.commit", DatabaseUnavailable)
        for query in queries:
            await active.run(When.AFTER, f"{query}.commit", DatabaseUnavailable)

    @asynccontextmanager
    async def statement_with_failpoints(self: Database) -> AsyncIterator[SingleStatements]:
        async with statement(self) as repositories:
            if self.commits_at_once:
                in_writer = self.engine.dialect.name == "sqlite"
                _instrument_repositories(repositories, active, None, in_writer=in_writer)
            yield repositories

    _instrument_writer(active)
    Database.transaction = transaction_with_failpoints  # type: ignore[method-assign]  # instrumentation
    Database.statement = statement_with_failpoints  # type: ignore[method-assign]  # the same


def _instrument_repositories(
    repositories: SingleStatements, active: Failpoints, queries: list[str] | None, *, in_writer: bool = False
) -> None:
    for name, repository in vars(repositories).items():
        prefix = f"{name}." if name in PREFIXED else ""
        setattr(repositories, name, _InstrumentedRepository(repository, active, queries, prefix, in_writer=in_writer))


def _instrument_writer(active: Failpoints) -> None:
    work, original = QueryUnit.work, Writer._commit

    def work_with_failpoints(unit: QueryUnit, connection: Connection) -> None:
        active.run_in_thread(When.BEFORE, f"{_name_of(unit)}.work", DatabaseUnavailable)
        work(unit, connection)

    def commit_with_failpoints(connection: Connection, units: Sequence[Unit]) -> None:
        queries = [_name_of(unit) for unit in units if isinstance(unit, QueryUnit)]
        for query in queries:
            active.run_in_thread(When.AFTER, query, DatabaseUnavailable)
        commits = [f"{query}.commit" for query in queries]
        if queries.count("add") > 1:
            commits.append("group.commit")
        for commit in commits:
            active.run_in_thread(When.BEFORE, commit, DatabaseUnavailable)
        original(connection, units)
        for commit in commits:
            active.run_in_thread(When.AFTER, commit, DatabaseUnavailable)

    QueryUnit.work = work_with_failpoints  # type: ignore[method-assign,assignment]  # the same
    Writer._commit = staticmethod(commit_with_failpoints)  # type: ignore[method-assign]


def _name_of(unit: QueryUnit) -> str:
    """Name the effect of a query that SQLite's writer runs."""
    repository, _, query = str(getattr(unit.query._coroutine, "__qualname__", "")).rpartition(".")
    return OWNERS.get(repository, "") + query


class _InstrumentedRepository:
    """Records the queries of a transaction; without one, a query and its commit are one effect.

    Unless it is committed ``in_writer``, which runs the failpoints of what follows its beginning.
    """

    def __init__(
        self, repository: object, active: Failpoints, queries: list[str] | None, prefix: str, *, in_writer: bool
    ) -> None:
        self._prefix = prefix
        self._in_writer = in_writer
        self._repository = repository
        self._active = active
        self._queries = queries

    def __getattr__(self, query: str) -> Callable[..., Awaitable[object]]:
        original = getattr(self._repository, query)
        effect = self._prefix + query
        if self._queries is None:
            return _committed(original, self._active, effect, in_writer=self._in_writer)
        self._queries.append(effect)
        return _with_failpoints(original, self._active, effect, DatabaseUnavailable)


def _committed(
    original: Callable[..., Awaitable[object]], active: Failpoints, query: str, *, in_writer: bool
) -> Callable[..., Awaitable[object]]:
    async def wrapper(*args: object, **options: object) -> object:
        await active.run(When.BEFORE, query, DatabaseUnavailable)
        if in_writer:
            return await original(*args, **options)
        await active.run(When.BEFORE, f"{query}.commit", DatabaseUnavailable)
        answer = await original(*args, **options)
        await active.run(When.AFTER, f"{query}.commit", DatabaseUnavailable)
        return answer

    return wrapper


def _instrument_disk(active: Failpoints, disk: Path, journal: Journal) -> None:
    """Wrap ``fsync`` and ``rename``, wherever the adapter calls them for images; not for probes."""
    fsync, rename = os.fsync, os.rename

    def fsync_with_failpoints(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(disk) or PROBES in path.parts:
            fsync(descriptor)
            return
        effect = _sync_of(path, disk / "storage", is_folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
        active.run_in_thread(When.BEFORE, effect, OSError)
        note = journal.observe(path)
        fsync(descriptor)
        journal.write(note)
        active.run_in_thread(When.AFTER, effect, OSError)

    def rename_with_failpoints(source: Path, target: Path, **options: Any) -> None:  # noqa: ANN401  (other options of os.rename)
        if not target.resolve().is_relative_to(disk) or PROBES in target.parts:
            rename(source, target, **options)
            return
        effect = f"{KINDS[target.parts[-3]]}.rename"
        active.run_in_thread(When.BEFORE, effect, OSError)
        rename(source, target, **options)
        active.run_in_thread(When.AFTER, effect, OSError)

    os.fsync = fsync_with_failpoints  # type: ignore[assignment]  # it also accepts file objects, which the service does not pass
    os.rename = rename_with_failpoints  # type: ignore[assignment]  # the same for other path types


def _sync_of(path: Path, storage: Path, *, is_folder: bool) -> str:
    """Name the sync of a file, a shard folder, the folder of shard folders, the storage, or the disk."""
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
