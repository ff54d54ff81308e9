"""Takes snapshots of the database, storage, queues, HTTP responses and decoder processes after the faults.

Independent of the service's code: reads with plain SQL, `os.walk` and AMQP, and repeats the names of tables, files and
queues, so that a mistake in the service cannot hide in its checker.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import aio_pika
import asyncpg
import httpx
import psutil
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from harness.plain_http import NO_TLS
from tests.faults.history import History

QUEUE = "images"
LANES = ("", ".express", ".backfill")
"""Suffixes of the lanes' queue names."""
DEAD_LETTERS = ".dead"
SCRATCH = "scratch"
OWNER = ".owner"
"""A file that belongs to no image."""
PROBES = ".probe"
"""The folders in which health checks write files for a moment."""
TABLES = {
    name: f"SELECT * FROM {name}"  # noqa: S608  (constant names)
    for name in (
        "images",
        "thumbnails",
        "removals",
        "identity",
        "events",
        "event_positions",
        "deliveries",
        "delivery_attempts",
    )
}
EXTENSIONS = {"jpeg": "jpg"}
"""Of file formats whose extension is another word."""
DECODER = "image_service.imaging.isolation.child"
"""The module that a decoder process runs."""

_CONCURRENCY = 8
"""Concurrent requests to the API."""
_MOST_ASKED = 400
_BUSY_INTERVAL = 0.3
"""Seconds between the two observations of a decoder."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service process that should be running."""

    name: str
    pid: int
    log: Path
    """In the working directory of the process and of its decoders."""
    decoders: int = 0
    """Decoder processes that it may keep idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The history of a run, and the locations of database, storage, broker, API and processes."""

    history: History
    database_url: str
    storage: Path
    grace: float
    """Seconds within which the service must become idle."""
    rabbitmq_url: str | None = None
    """None for the embedded queue."""
    queue: str = QUEUE
    api_url: str | None = None
    """None if no API process runs."""
    processes: Sequence[Running] = ()
    old_log: Path | None = None
    """The log of a worker of a version that records no events, if one runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One event of the service's log."""

    id: str
    position: tuple[int, int]
    """The number of the transaction that recorded it, and its own: the order of the log."""
    type: str
    image_id: str | None
    image: Row
    """The image as the event left it; empty if it is about no image."""

    @property
    def only(self) -> str | None:
        """The only webhook endpoint that gets it; None: all that want its type."""
        return self.image.get("webhook_id")


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """The observed state. Image ids are in canonical form, whatever the database uses."""

    storage: Path
    seen_at: float = field(default_factory=time.time)
    images: dict[str, Row] = field(default_factory=dict)
    thumbnails: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    removals: dict[str, datetime] = field(default_factory=dict)
    """Files to be removed, each with the time from which it may be removed."""
    log: list[LogEvent] = field(default_factory=list)
    """All events in the order of the log."""
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """How far the log is passed on, or purged, by purpose."""
    deliveries: list[Row] = field(default_factory=list)
    attempts: dict[tuple[int, int], Row] = field(default_factory=dict)
    """What came of attempts at deliveries, by delivery and number."""
    unrecorded: set[str] = field(default_factory=set)
    """Images that a worker of a version without events had to do with."""
    files: set[str] = field(default_factory=set)
    """Paths below the storage folder, without those of the scratch folder."""
    scratch: set[str] = field(default_factory=set)
    queues: dict[str, int] = field(default_factory=dict)
    """Ready messages by queue."""
    dead_letters: list[str] = field(default_factory=list)
    """Bodies of dead-lettered messages."""
    served: dict[str, "Served"] = field(default_factory=dict)
    decoders: dict[str, list["Decoder"]] = field(default_factory=dict)
    """By owning process; ``""`` for decoders whose owner is gone."""

    def has_leases(self) -> bool:
        """Whether a lease on an unfinished image, or on outputs, has not ended at the time of the snapshot."""
        ends = [moment(row["lease_until"]) for row in self.images.values() if row["due_at"] is not None]
        ends += [moment(row["outputs_lease_until"]) for row in self.images.values()]
        return any(end is not None and end.timestamp() > self.seen_at for end in ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the API serves for one image."""

    status: Row
    files: Mapping[str, str]
    """SHA-256 digests: of the original, of each output by name and extension, and of default formats by preset; or a
    description of the failed response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder process."""

    pid: int
    busy: bool


async def take_snapshot(evidence: Evidence) -> Snapshot:
    """Read storage, database and queues."""
    snapshot = Snapshot(storage=evidence.storage)
    # The storage first: if a row is deleted in between, the snapshot shows files without a row, never the reverse, and
    # the caller takes another snapshot.
    await asyncio.to_thread(_walk, snapshot)
    await _read_database(evidence.database_url, snapshot)
    if evidence.old_log is not None:
        snapshot.unrecorded = set(_UUID.findall(evidence.old_log.read_text(errors="replace")))
    if evidence.rabbitmq_url is not None:
        async with await aio_pika.connect(evidence.rabbitmq_url, timeout=5) as connection:
            snapshot.queues = await _depths(connection, evidence.queue)
            snapshot.dead_letters = await _dead_letters(connection, evidence.queue)
    return snapshot


async def add_decoders(evidence: Evidence, snapshot: Snapshot) -> None:
    """Add the decoder processes, which take longer to observe; for a service that is idle otherwise."""
    await asyncio.to_thread(_find_decoders, evidence.processes, snapshot)


async def add_responses(evidence: Evidence, snapshot: Snapshot) -> None:
    """Add what the API serves; for an idle service."""
    if evidence.api_url is not None:
        await _read_api(evidence.api_url, snapshot)


def _walk(snapshot: Snapshot) -> None:
    for folder, _, names in os.walk(snapshot.storage):
        below = Path(folder).relative_to(snapshot.storage).as_posix()
        if below.startswith(SCRATCH):
            snapshot.scratch.update(f"{below}/{name}".removeprefix(f"{SCRATCH}/") for name in names)
        else:
            hidden = below.endswith(f"/{PROBES}")
            snapshot.files.update(
                f"{below}/{name}".removeprefix("./") for name in names if name != OWNER and not hidden
            )


async def _read_database(url: str, snapshot: Snapshot) -> None:
    if url.startswith("sqlite"):
        tables = await asyncio.to_thread(_read_sqlite, url.partition(":///")[2])
    else:
        tables = await _read_postgresql(url.replace("+asyncpg", ""))
    for image in tables["images"]:
        snapshot.images[_uuid(image["id"])] = image
    for thumbnail in tables["thumbnails"]:
        snapshot.thumbnails[_uuid(thumbnail["image_id"])].append(thumbnail)
    (identity,) = tables["identity"] or ({"id": UUID(int=0)},)
    snapshot.log = sorted((_event(row, _uuid(identity["id"])) for row in tables["events"]), key=lambda e: e.position)
    snapshot.positions = {row["name"]: (row["transaction_id"], row["number"]) for row in tables["event_positions"]}
    snapshot.attempts = {(row["delivery_id"], row["attempt"]): row for row in tables["delivery_attempts"]}
    snapshot.deliveries = tables["deliveries"]
    for removal in tables["removals"]:
        snapshot.removals[removal["key"]] = moment(removal["due_at"]) or datetime.min.replace(tzinfo=UTC)


async def _read_postgresql(url: str) -> dict[str, list[Row]]:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {name: [dict(row) for row in await connection.fetch(query)] for name, query in TABLES.items()}
    finally:
        await connection.close()


def _read_sqlite(path: str) -> dict[str, list[Row]]:
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        return {name: [dict(row) for row in connection.execute(query)] for name, query in TABLES.items()}


def _event(row: Row, database: str) -> LogEvent:
    about = row["image_id"] is not None
    return LogEvent(
        id=f"evt_{database[-8:]}_{row['transaction_id']}_{row['number']}",
        position=(row["transaction_id"], row["number"]),
        type=row["type"],
        image_id=_uuid(row["image_id"]) if about else None,
        image=json.loads(row["snapshot"]) if about else {},
    )


def _uuid(value: object) -> str:
    return str(UUID(str(value)))


def moment(value: object) -> datetime | None:
    """Convert a timestamp from either database or from JSON."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def pending(row: Row) -> set[str]:
    """Return the names of the outputs that a DONE image still lacks, as recorded."""
    return set(_from_json(row["pending"]) or ())


def left_out(row: Row) -> set[str]:
    """Return the names of the outputs that an image is recorded not to have."""
    return set(_from_json(row["left_out"]) or ())


def _from_json(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    """Parse a JSON column, which both databases return as text."""
    return json.loads(value) if isinstance(value, str) else value


def comparable(name: str, value: Any) -> Any:  # noqa: ANN401  (any value of a column)
    """Convert a column's value, from a row of either database or from JSON, to what can be compared."""
    if name.endswith("_at"):
        return moment(value)
    if name in {"metadata_removed", "left_out"}:
        return _from_json(value) or None
    return str(value) if isinstance(value, UUID) else value


def original_path(image_id: str) -> str:
    """Return the path of an image's original below the storage folder."""
    return f"originals/{image_id[-2:]}/{image_id}"


def image_in(text: str) -> str:
    """Return the image id in a path or message; the text itself if it contains none."""
    found = _UUID.search(text)
    return found[0] if found else text


async def _depths(connection: AbstractConnection, queue: str) -> dict[str, int]:
    depths = {}
    for lane in LANES:
        async with connection.channel() as channel:
            # Declaring a missing queue passively closes the channel.
            with suppress(ChannelNotFoundEntity):
                found = await channel.declare_queue(queue + lane, passive=True)
                depths[queue + lane] = found.declaration_result.message_count or 0
    return depths


async def _dead_letters(connection: AbstractConnection, queue: str) -> list[str]:
    """Read without acknowledging: the messages return when the channel closes."""
    bodies: list[str] = []
    async with connection.channel() as channel:
        with suppress(ChannelNotFoundEntity):
            dead = await channel.get_queue(queue + DEAD_LETTERS)
            while message := await dead.get(fail=False, timeout=5):
                bodies.append(message.body.decode(errors="replace"))
    return bodies


async def _read_api(url: str, snapshot: Snapshot) -> None:
    limit = asyncio.Semaphore(_CONCURRENCY)
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=NO_TLS) as client:

        async def ask(image_id: str) -> None:
            async with limit:
                snapshot.served[image_id] = await _served(client, image_id)

        # A sample is enough for large runs: rows and files of all images are checked anyway.
        asked = random.Random(0).sample([*snapshot.images], min(len(snapshot.images), _MOST_ASKED))
        await asyncio.gather(*(ask(image_id) for image_id in asked))


async def _served(client: httpx.AsyncClient, image_id: str) -> Served:
    answer = await client.get(f"/images/{image_id}")
    if answer.status_code != httpx.codes.OK:
        return Served(status={"status": f"answer {answer.status_code}"}, files={})
    status: dict[str, Any] = answer.json()
    files = {name: await _digest(client, url) for name, url in status["thumbnails"].items()}
    ready = {_file_name(output): output["url"] for output in status["outputs"] if output["status"] == "ready"}
    files |= {name: await _digest(client, url) for name, url in ready.items()}
    files["original"] = await _digest(client, status["original_url"])
    return Served(status=status, files=files)


def _file_name(output: Row) -> str:
    density = "" if output["dpr"] == 1 else f"@{output['dpr']}x"
    return f"{output['preset']}{density}.{EXTENSIONS.get(output['format'], output['format'])}"


async def _digest(client: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await client.get(url)
    except httpx.RemoteProtocolError:
        return "an incomplete response"
    if answer.status_code != httpx.codes.OK:
        return f"answer {answer.status_code}"
    return hashlib.sha256(answer.content).hexdigest()


def _find_decoders(processes: Sequence[Running], snapshot: Snapshot) -> None:
    owners = {running.pid: running.name for running in processes}
    places = {running.log.parent.resolve() for running in processes}
    snapshot.decoders = defaultdict(list)
    before = {decoder: _works(decoder) for decoder in _decoders_in(places)}
    if any(before.values()):
        time.sleep(_BUSY_INTERVAL)
    for decoder, worked in before.items():
        with suppress(psutil.NoSuchProcess):
            found = Decoder(pid=decoder.pid, busy=worked and _works(decoder))
            snapshot.decoders[owners.get(decoder.ppid(), "")].append(found)


def _decoders_in(places: set[Path]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if DECODER in process.cmdline() and Path(process.cwd()) in places:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _works(process: psutil.Process) -> bool:
    """Whether the process is runnable, including while it waits for a processor."""
    try:
        return process.status() == psutil.STATUS_RUNNING
    except psutil.NoSuchProcess:
        return False
