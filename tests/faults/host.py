"""A simulated host: the service's processes, which can be killed at failpoints, and a disk whose power can fail.

Database and broker run elsewhere and are not affected.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import psutil
import pytest

from harness.fork_server import PROGRAM as CLI
from harness.fork_server import Order
from harness.forked import ForkedProcess, fork
from harness.pace import slowness
from harness.processes import free_port
from harness.waiting import eventually
from tests.faults import failpoints, powerloss
from tests.faults.checker import Evidence, Running, Violation, violations
from tests.faults.client import Client
from tests.faults.evidence import Snapshot, take_snapshot
from tests.faults.failpoints import Failpoint
from tests.faults.history import OK, Exchange, Fault, History, Picture, Sent
from tests.faults.receiver_set import ReceiverNames, ReceiverSet
from tests.faults.recipes import write_recipes
from tests.faults.rules import IDLE_RULES

SETTINGS = {
    "LOG_FORMAT": "json",
    "RECONCILE_INTERVAL": "0.2",
    "SWEEP_INTERVAL": "0.3",
    "RETRY_DELAY": "0.2",
    "DECODE_SLOTS": "1",
    "OUTBOUND_ALLOW": "127.0.0.0/8",
    "WEBHOOK_TIMEOUT": "1",
}
"""Periodic jobs run all the time; longer delays are skipped with ``advance_time``."""
ORPHAN_GRACE = 1.5
"""Seconds on an idle machine: longer than an upload or a rendering takes, whose files the sweeper must spare."""
HOUR = 3600.0
"""Longer than every lease and delay of the service."""
PROGRAM = "tests.faults.instrumented"
START_LIMIT = 30.0
REACH_LIMIT = 20.0
CONVERGENCE = 25.0
"""Seconds within which the service must become idle."""
_TIMED = {
    "images": ("queued_at", "lease_until", "due_at", "outputs_lease_until", "outputs_due_at"),
    "removals": ("due_at",),
    "event_positions": ("lease_until",),
    "webhooks": ("failing_since", "paused_until", "previous_until"),
    "deliveries": ("due_at", "lease_until"),
}
_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_STARTED = {
    "api": ('"api started"',),
    "worker": ('"worker started"',),
    "standalone": ('"worker started"', "Upload an image"),
}
"""Log lines that show that a process of the role is ready."""


@dataclass(slots=True)
class Process:
    """One running process of the service."""

    name: str
    folder: Path
    process: ForkedProcess
    born: float

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def wait_until_reached(self, point: Failpoint) -> None:
        """Wait until the process reaches the failpoint; fail the test if it does not."""
        await eventually(lambda: point.notice(self.folder).exists(), timeout=REACH_LIMIT)

    def release(self, point: Failpoint) -> None:
        """Release the process held at the failpoint."""
        point.permission(self.folder).touch()

    def resume(self) -> None:
        """Resume the stopped process."""
        self.process.resume()


class Host:
    """The simulated host."""

    def __init__(
        self,
        folder: Path,
        fork_server: str,
        database_url: str,
        rabbitmq_url: str | None,
        settings: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.rabbitmq_url = rabbitmq_url
        self.disk = folder / "disk"
        self.history = History(folder / "history.jsonl")
        self.processes: dict[str, Process] = {}
        self.receivers: ReceiverSet | None = None
        self._urls: dict[str, str] = {}
        self._client = Client(self._urls, self.history)
        self._fork_server = fork_server
        self._journal = folder / "journal"
        self._read_only_since = 0.0
        self._settings = {
            **SETTINGS,
            "DATABASE_URL": database_url,
            "RABBITMQ_URL": rabbitmq_url or "embedded://",
            "STORAGE_PATH": str(self.storage),
            "RECIPES_FILE": str(write_recipes(folder)),
            "FAULT_DISK": str(self.disk),
            "FAULT_JOURNAL": str(self._journal),
            **settings,
        }
        self.disk.mkdir()
        powerloss.sync_all(self.disk, self._journal)

    @classmethod
    def standalone(cls, folder: Path, fork_server: str, settings: Mapping[str, str]) -> Self:
        """Return a host for the standalone service, on SQLite without a broker."""
        return cls(folder, fork_server, f"sqlite+aiosqlite:///{folder / 'data' / 'images.db'}", None, settings)

    @property
    def distributed(self) -> bool:
        """Whether API and worker are separate processes."""
        return self.rabbitmq_url is not None

    @property
    def broker(self) -> str:
        """The broker's URL; only for a distributed host."""
        assert self.rabbitmq_url is not None
        return self.rabbitmq_url

    @property
    def storage(self) -> Path:
        return self.disk / "storage"

    async def close(self) -> None:
        """Kill all processes."""
        if self.receivers is not None:
            await self.receivers.close()
        for name in [*self.processes]:
            await self.kill(name)
        await self._client.close()
        self.history.close()

    async def start(self, name: str, *active: Failpoint, **settings: str) -> Process:
        """Start a process (``api``, ``worker-2``, ``standalone``); return when it is ready or dead."""
        role = name.partition("-")[0]
        folder = self.folder / name
        for old in folder.glob("reached *"):
            old.unlink()
        env = {
            "ORPHAN_GRACE": f"{ORPHAN_GRACE * slowness():.1f}",
            **self._settings,
            "LIVENESS_FILE": str(folder / "alive"),
            "FAULT_FOLDER": str(folder),
            "FAULT_POINTS": failpoints.encode(active),
            **settings,
        }
        starts = _count_starts(folder / "server.log", role)
        born = time.time()
        order = self._order(folder, PROGRAM, [role, *self._address(name, role)], env)
        forked = await asyncio.to_thread(fork, self._fork_server, order)
        process = self.processes[name] = Process(name, folder, forked, born)
        await eventually(lambda: _count_starts(process.log, role) > starts or not process.alive, timeout=START_LIMIT)
        return process

    def _order(self, folder: Path, program: str, arguments: list[str], env: Mapping[str, str]) -> Order:
        folder.mkdir(parents=True, exist_ok=True)
        return Order(
            program=program,
            arguments=arguments,
            environment={"PATH": os.environ["PATH"], "TMPDIR": str(folder), **env},
            folder=str(folder),
            output=str(folder / "server.log"),
            errors=str(folder / "server.log"),
            group=None,
        )

    async def begin_backfill(self) -> None:
        """Run the command ``backfill`` until it has marked every DONE image, and kill it."""
        data = [] if self.distributed else ["--data", str(self.folder / "data")]
        order = self._order(self.folder / "backfill", CLI, ["backfill", *data], self._settings)
        process = await asyncio.to_thread(fork, self._fork_server, order)
        await self.wait_for(
            lambda snapshot: all(
                row["outputs_due_at"] is not None for row in snapshot.images.values() if row["status"] == "DONE"
            )
        )
        process.kill()
        await asyncio.to_thread(process.wait)

    async def start_receivers(self, members: ReceiverNames | None = None) -> ReceiverSet:
        """Let receivers of events begin to receive; an API process must run. See ``ReceiverSet``."""
        self.receivers = ReceiverSet(0, self.history, self._urls, self.rabbitmq_url, members)
        await self.receivers.begin(next(iter(self._urls.values())))
        return self.receivers

    async def start_all(self) -> None:
        """Start API and worker, or the standalone process."""
        roles = ("api", "worker") if self.distributed else ("standalone",)
        await asyncio.gather(*(self.start(role) for role in roles))

    async def stop_all(self) -> None:
        """Stop every process with SIGTERM."""
        for process in self.processes.values():
            process.process.terminate()
        for process in self.processes.values():
            await self._wait_until_gone(process, [])
        self.processes.clear()

    async def kill(self, name: str) -> None:
        """SIGKILL one process and wait until it and its decoders are gone; the decoders must exit by themselves."""
        process = self.processes.pop(name)
        decoders: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it may already have died
            decoders = process.process.children()
            process.process.kill()
        await self._wait_until_gone(process, decoders)
        kind = f"kill-{name.partition('-')[0]}"
        self.history.append(Fault(kind=kind, subject=name, began=process.born, ended=time.time()))

    async def wait_for_death(self, name: str, point: Failpoint) -> None:
        """Wait until the process has died at the failpoint."""
        process = self.processes[name]
        await process.wait_until_reached(point)
        await eventually(lambda: not process.alive, timeout=REACH_LIMIT)
        await self.kill(name)

    async def lose_power(self) -> None:
        """Kill every process and undo all unsynced changes to the disk."""
        for name in [*self.processes]:
            await self.kill(name)
        await asyncio.to_thread(powerloss.lose_power, self.disk, self._journal)

    async def advance_time(self, seconds: float = HOUR) -> None:
        """Shift all times in rows and files into the past (into the future for a negative number)."""
        for path in self.storage.rglob("*"):
            with suppress(FileNotFoundError):  # a running process has just removed it
                status = path.stat()
                os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))
        if self.database_url.startswith("sqlite"):
            await asyncio.to_thread(_shift_sqlite, self.database_url.partition(":///")[2], seconds)
        else:
            await _shift_postgresql(self.database_url, seconds)

    async def make_database_read_only(self) -> None:
        """Make new sessions read-only, and terminate those that are open. Only for PostgreSQL."""
        self._read_only_since = time.time()
        await self._alter_database("SET default_transaction_read_only = on")
        await self.terminate_sessions()

    async def make_database_writable(self) -> None:
        """Make new sessions writable again; those that are open stay read-only."""
        await self._alter_database("RESET default_transaction_read_only")
        times = {"began": self._read_only_since, "ended": time.time()}
        self.history.append(Fault(kind="read-only-database", subject="database", **times))

    async def terminate_sessions(self) -> None:
        """Terminate the service's sessions at the database."""
        await _execute(self.database_url, f"SELECT count(pg_terminate_backend(pid)) {_SESSIONS}")

    async def count_sessions(self) -> int:
        """Return the number of the service's sessions at the database."""
        return int(await _execute(self.database_url, f"SELECT count(*) {_SESSIONS}"))

    async def _alter_database(self, change: str) -> None:
        name = self.database_url.rpartition("/")[2]
        await _execute(self.database_url, f'ALTER DATABASE "{name}" {change}')

    async def upload(
        self,
        content: bytes,
        picture: Picture = Picture.VALID,
        key: str | None = None,
        server: str | None = None,
        recipe: str | None = None,
    ) -> Exchange:
        """Upload a file to the API, or to the named API process."""
        asked = server or next(iter(self._urls))
        return await self._client.upload(asked, content, Sent.of(content, picture, key, recipe))

    async def upload_accepted(self, content: bytes, **options: Any) -> str:  # noqa: ANN401  (those of upload)
        """Upload a file that must be accepted; return the image's id."""
        answer = await self.upload(content, **options)
        assert answer.outcome == OK, answer
        assert answer.image_id is not None
        return answer.image_id

    async def status(self, image_id: str) -> Exchange:
        return await self._client.status(next(iter(self._urls)), image_id)

    async def delete(self, image_id: str) -> Exchange:
        return await self._client.delete(next(iter(self._urls)), image_id)

    async def reprocess(self, image_id: str, recipe: str | None = None) -> Exchange:
        return await self._client.reprocess(next(iter(self._urls)), image_id, recipe)

    async def snapshot(self) -> Snapshot:
        """Read database, disk and queues."""
        return await take_snapshot(self._evidence(grace=0))

    async def wait_for_state(self, image_id: str, state: str) -> None:
        """Wait until the API reports the state."""

        async def is_reported() -> bool:
            answer = await self.status(image_id)
            return answer.seen is not None and answer.seen.state == state

        await eventually(is_reported, timeout=CONVERGENCE)

    async def wait_for(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Take snapshots until one meets the condition; return it."""

        async def found() -> Snapshot | None:
            snapshot = await self.snapshot()
            return snapshot if condition(snapshot) else None

        snapshot = await eventually(found, timeout=CONVERGENCE)
        assert snapshot is not None
        return snapshot

    async def violations(self, grace: float = CONVERGENCE) -> list[Violation]:
        """Let webhook endpoints recover, wait until the service is idle, and check all invariants."""
        if self.receivers is not None:
            self.receivers.recover()
        evidence = self._evidence(grace)
        try:
            return await violations(evidence)
        except httpx.TransportError:
            # A response broke off: the stored state must then be wrong, too.
            if found := await violations(replace(evidence, api_url=None)):
                return found
            raise

    async def assert_invariants(self) -> None:
        """Fail with all details if an invariant is violated."""
        _assert_none(await self.violations())

    async def assert_nothing_is_broken(self) -> None:
        """Fail if an invariant is violated that holds at any moment, whatever is still to be done."""
        evidence = replace(self._evidence(grace=0), api_url=None)
        _assert_none([each for each in await violations(evidence) if each.invariant not in IDLE_RULES])

    def _evidence(self, grace: float) -> Evidence:
        living = [name for name in self._urls if name in self.processes]
        return Evidence(
            history=self.history,
            database_url=self.database_url,
            storage=self.storage,
            grace=grace,
            rabbitmq_url=self.rabbitmq_url,
            api_url=self._urls[living[0]] if living else None,
            processes=[Running(name=p.name, pid=p.process.pid, log=p.log) for p in self.processes.values()],
        )

    def _address(self, name: str, role: str) -> list[str]:
        """Return the options that make it listen on the same port after every restart."""
        if role == "worker":
            return []
        if name not in self._urls:
            self._urls[name] = f"http://127.0.0.1:{free_port()}"
        data = ["--data", str(self.folder / "data")] if role == "standalone" else []
        return ["--host", "127.0.0.1", "--port", self._urls[name].rpartition(":")[2], *data]

    async def _wait_until_gone(self, process: Process, decoders: list[psutil.Process]) -> None:
        await eventually(lambda: not process.alive and not any(map(_lives, decoders)), timeout=REACH_LIMIT)


def _assert_none(found: list[Violation]) -> None:
    if found:
        pytest.fail("\n".join(f"{each.invariant} {each.subject}: {each.details}" for each in found), pytrace=False)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _count_starts(log: Path, role: str) -> int:
    """Count how many times the process became ready."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return min(text.count(line) for line in _STARTED[role])


async def _shift_postgresql(url: str, seconds: float) -> None:
    for table, columns in _TIMED.items():
        changes = ", ".join(f"{column} = {column} - make_interval(secs => {seconds})" for column in columns)
        await _execute(url, f"UPDATE {table} SET {changes}")  # noqa: S608  (constant names)


async def _execute(url: str, statement: str) -> Any:  # noqa: ANN401  (of the statement's type)
    """Execute a statement in a session that is writable even if the database is not; return its first value."""
    connection = await asyncpg.connect(
        url.replace("+asyncpg", ""), timeout=5, server_settings={"default_transaction_read_only": "off"}
    )
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _shift_sqlite(path: str, seconds: float) -> None:
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        for table, columns in _TIMED.items():
            changes = ", ".join(
                f"{column} = strftime('%Y-%m-%d %H:%M:%f000', {column}, '{-seconds} seconds')" for column in columns
            )
            connection.execute(f"UPDATE {table} SET {changes}")  # noqa: S608  (constant names)
