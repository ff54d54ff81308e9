"""What is found after the faults: in the database, in the storage, in the queues, over HTTP and among the processes.

Nothing here knows the service's code. What it writes is read with plain SQL, `os.walk` and AMQP, and the names of
tables, files and queues are written down once more, because a mistake in the service must not be shared by its judge.
"""

import asyncio
import hashlib
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

from tests.faults.history import History

QUEUE = "images"
LANES = ("", ".express", ".backfill")
"""Each has a queue, whose name ends so."""
DEAD_LETTERS = ".dead"
SCRATCH = "scratch"
OWNER = ".owner"
"""A note that belongs to no image."""
TABLES = {name: f"SELECT * FROM {name}" for name in ("images", "thumbnails", "removals")}  # noqa: S608  (our own words)
DECODER = "image_service.imaging.child"
"""The module that a decoder process runs."""

_AT_ONCE = 8
"""Requests to the API at the same time."""
_MOST_ASKED = 400
_BUSY_LOOK = 0.3
"""Seconds over which a decoder's processor time is watched."""

_BUSY_FROM = 0.05
"""Seconds of processor time in which it does nothing useful: an idle one uses none."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process of the service that is meant to run."""

    name: str
    pid: int
    log: Path
    """In the folder that the process, and so each of its decoders, was started in."""
    decoders: int = 0
    """How many decoder processes it may keep warm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where to look."""

    history: History
    database_url: str
    storage: Path
    grace: float
    """Seconds that the service has to come to rest."""
    rabbitmq_url: str | None = None
    """None where the queue lives in the service's process."""
    queue: str = QUEUE
    api_url: str | None = None
    """Where HTTP is answered; None if nobody does any more."""
    processes: Sequence[Running] = ()


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """What there is. Image ids are in their usual form, whatever a database makes of them."""

    storage: Path
    seen_at: float = field(default_factory=time.time)
    images: dict[str, Row] = field(default_factory=dict)
    thumbnails: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    removals: dict[str, datetime] = field(default_factory=dict)
    """Paths of files that are to be removed from a moment on."""
    files: set[str] = field(default_factory=set)
    """Paths below the storage folder, but for the scratch folder's."""
    scratch: set[str] = field(default_factory=set)
    queues: dict[str, int] = field(default_factory=dict)
    """Messages that wait, by queue."""
    dead_letters: list[str] = field(default_factory=list)
    """The bodies of messages that were given up."""
    served: dict[str, "Served"] = field(default_factory=dict)
    decoders: dict[str, list["Decoder"]] = field(default_factory=dict)
    """By the process that they belong to; ``""`` for those whose owner is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What HTTP serves of one image."""

    status: Row
    files: Mapping[str, str]
    """SHA-256 digests: of the original, and of the thumbnails by preset; or what came instead of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder process."""

    pid: int
    busy: bool


async def take_snapshot(evidence: Evidence) -> Snapshot:
    """All that can be looked at in a moment."""
    snapshot = Snapshot(storage=evidence.storage)
    # The storage first: of a row that is deleted in between, the files are then found to be there still, not the
    # other way round. Whoever sees that looks again.
    await asyncio.to_thread(_walk, snapshot)
    await _read_database(evidence.database_url, snapshot)
    if evidence.rabbitmq_url is not None:
        async with await aio_pika.connect(evidence.rabbitmq_url, timeout=5) as connection:
            snapshot.queues = await _depths(connection, evidence.queue)
            snapshot.dead_letters = await _dead_letters(connection, evidence.queue)
    return world


async def complete_snapshot(evidence: Evidence, snapshot: Snapshot) -> None:
    """The same for what takes longer, once the world is at rest."""
    await asyncio.to_thread(_find_decoders, evidence.processes, snapshot)
    if evidence.api_url is not None:
        await _ask_for_everything(evidence.api_url, snapshot)


def _walk(snapshot: Snapshot) -> None:
    for folder, _, names in os.walk(snapshot.storage):
        below = Path(folder).relative_to(snapshot.storage).as_posix()
        if below.startswith(SCRATCH):
            snapshot.scratch.update(f"{below}/{name}".removeprefix(f"{SCRATCH}/") for name in names)
        else:
            snapshot.files.update(f"{below}/{name}".removeprefix("./") for name in names if name != OWNER)


async def _read_database(url: str, snapshot: Snapshot) -> None:
    if url.startswith("sqlite"):
        tables = await asyncio.to_thread(_read_sqlite, url.partition(":///")[2])
    else:
        tables = await _read_postgresql(url.replace("+asyncpg", ""))
    for image in tables["images"]:
        snapshot.images[_uuid(image["id"])] = image
    for thumbnail in tables["thumbnails"]:
        snapshot.thumbnails[_uuid(thumbnail["image_id"])].append(thumbnail)
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


def _uuid(value: object) -> str:
    return str(UUID(str(value)))


def moment(value: object) -> datetime | None:
    """A point in time, as any of the databases or JSON has it."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def original_path(image_id: str) -> str:
    """Where an image's original lies, below the storage folder."""
    return f"originals/{image_id[-2:]}/{image_id}"


def image_in(text: str) -> str:
    """The image that a path or a message names; the text itself if it names none."""
    found = _UUID.search(text)
    return found[0] if found else text


async def _depths(connection: AbstractConnection, queue: str) -> dict[str, int]:
    depths = {}
    for lane in LANES:
        async with connection.channel() as channel:
            # Asking for a queue that is not there closes the channel.
            with suppress(ChannelNotFoundEntity):
                found = await channel.declare_queue(queue + lane, passive=True)
                depths[queue + lane] = found.declaration_result.message_count or 0
    return depths


async def _dead_letters(connection: AbstractConnection, queue: str) -> list[str]:
    """Read without acknowledging, so that they are back once the channel is closed."""
    bodies: list[str] = []
    async with connection.channel() as channel:
        with suppress(ChannelNotFoundEntity):
            dead = await channel.get_queue(queue + DEAD_LETTERS)
            while message := await dead.get(fail=False, timeout=5):
                bodies.append(message.body.decode(errors="replace"))
    return bodies


async def _ask_for_everything(url: str, snapshot: Snapshot) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:

        async def ask(image_id: str) -> None:
            async with turns:
                snapshot.served[image_id] = await _served(client, image_id)

        # Of very many, any will do: each is one of those that were checked where they are stored.
        asked = random.Random(0).sample([*snapshot.images], min(len(snapshot.images), _MOST_ASKED))
        await asyncio.gather(*(ask(image_id) for image_id in asked))


async def _served(client: httpx.AsyncClient, image_id: str) -> Served:
    answer = await client.get(f"/images/{image_id}")
    if answer.status_code != httpx.codes.OK:
        return Served(status={"status": f"answer {answer.status_code}"}, files={})
    status: dict[str, Any] = answer.json()
    files = {name: await _digest(client, url) for name, url in status["thumbnails"].items()}
    files["original"] = await _digest(client, status["original_url"])
    return Served(status=status, files=files)


async def _digest(client: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await client.get(url)
    except httpx.RemoteProtocolError:
        return "an answer that ends too early"
    if answer.status_code != httpx.codes.OK:
        return f"answer {answer.status_code}"
    return hashlib.sha256(answer.content).hexdigest()


def _find_decoders(processes: Sequence[Running], snapshot: Snapshot) -> None:
    owners = {running.pid: running.name for running in processes}
    places = {running.log.parent.resolve() for running in processes}
    snapshot.decoders = defaultdict(list)
    before = {decoder: _works(decoder) for decoder in _decoders_in(places)}
    time.sleep(_BUSY_LOOK)
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
    """Whether it has something to do, be it that another process has the processor just now."""
    try:
        return process.status() == psutil.STATUS_RUNNING
    except psutil.NoSuchProcess:
        return False
