"""Changes of a SQLite database: one thread commits all that wait together, each of which fails on its own."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from itertools import pairwise
from uuid import UUID

import pytest
from sqlalchemy import Executable, event, insert, select, text
from sqlalchemy.exc import IntegrityError

from harness.fakes import LONG_TIMEOUT
from harness.pace import slowness
from harness.rows import add, claimed, execute, in_transaction, queued, recorded, rendered, status_of, thumbnail, upload
from harness.waiting import eventually
from image_service.database import Database, sqlite_writer
from image_service.domain.image import Original
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable
from image_service.models import ImageRow, ThumbnailRow

WRITERS = 8
ROUNDS = 25
SHORT = 0.3
"""Seconds; a time limit that is to be reached."""


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


@pytest.fixture
def commits(database: Database) -> list[None]:
    """Gets an item for each COMMIT."""
    found: list[None] = []
    event.listen(database.engine, "commit", lambda _: found.append(None))
    return found


class Gate:
    """Holds the writer's thread where it first comes by."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def pass_by(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(60)

    async def reached(self) -> None:
        await eventually(self._reached.is_set)

    def open(self) -> None:
        self._open.set()


@contextmanager
def held(database: Database) -> Iterator[Gate]:
    """Hold the next COMMIT until the block ends."""
    gate = Gate()
    event.listen(database.engine, "commit", gate.pass_by, once=True)
    try:
        yield gate
    finally:
        gate.open()


def adding(database: Database, *originals: Original) -> list[asyncio.Task[None]]:
    """Record each in a statement of its own, all at once."""
    return [asyncio.create_task(add_alone(database, original)) for original in originals]


async def add_alone(database: Database, original: Original) -> None:
    async with database.statement() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)


async def alone(database: Database, statement: Executable) -> None:
    async with database.statement() as repositories:
        await repositories.connection.execute(statement)


async def submitted(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Let each task come to where it waits for the writer."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def existing(database: Database, *originals: Original) -> set[UUID]:
    return await in_transaction(database, lambda r: r.images.existing([each.id for each in originals]))


async def test_no_writer_starves(database: Database) -> None:
    written: list[int] = []

    async def write(writer: int) -> None:
        for _ in range(ROUNDS):
            await recorded(database)
            written.append(writer)

    await asyncio.gather(*map(write, range(WRITERS)))
    # SQLite itself serves them in no order: some are overtaken a hundred times.
    assert max(longest_wait(written, writer) for writer in range(WRITERS)) <= 5 * WRITERS


def longest_wait(written: list[int], writer: int) -> int:
    """The most writes of others between two writes of one writer."""
    own = [-1, *(at for at, who in enumerate(written) if who == writer)]
    return max(later - earlier for earlier, later in pairwise(own))


async def test_all_that_wait_share_one_commit_in_the_order_of_their_arrival(
    database: Database, commits: list[None]
) -> None:
    first, *others = (upload() for _ in range(9))
    with held(database) as gate:
        tasks = adding(database, first)
        await gate.reached()
        tasks += adding(database, *others)
        await submitted(tasks)
    await asyncio.gather(*tasks)
    assert len(commits) == 2
    async with database.statement() as repositories:
        rows = await repositories.connection.execute(select(ImageRow.id).order_by(text("rowid")))
    assert list(rows.scalars()) == [first.id, *(each.id for each in others)]


async def test_no_one_is_answered_and_nothing_is_visible_before_the_commit(database: Database) -> None:
    original = upload()
    with held(database) as gate:
        tasks = adding(database, original)
        await gate.reached()
        await submitted(tasks)
        assert await existing(database, original) == set(), "and reading does not wait"
    await asyncio.gather(*tasks)
    assert await existing(database, original) == {original.id}


async def test_unit_that_fails_does_not_affect_the_others_of_its_group(database: Database, commits: list[None]) -> None:
    claim = await claimed(database, await queued(database))
    twice = rendered(thumbnail(claim), thumbnail(claim))
    first, before, after = upload(), upload(), upload()

    async def fail() -> None:
        async with database.statement() as repositories:
            await repositories.claims.complete(claim, twice)

    with held(database) as gate:
        tasks = adding(database, first)
        await gate.reached()
        commits.clear()
        tasks += [*adding(database, before), asyncio.create_task(fail()), *adding(database, after)]
        await submitted(tasks)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), IntegrityError, type(None)]
    assert await existing(database, before, after) == {before.id, after.id}
    assert await status_of(database, claim.image_id) is Status.PROCESSING
    assert len(commits) == 1


async def test_failing_commit_fails_its_whole_group_and_the_next_one_succeeds(database: Database) -> None:
    orphan = {"image_id": upload().id, "width": 1, "height": 1, "size_bytes": 1}
    orphan |= dict.fromkeys(("output", "key", "content_type", "sha256"), "")
    first, before, after = upload(), upload(), upload()
    with held(database) as gate:
        tasks = adding(database, first)
        await gate.reached()
        tasks += adding(database, before)
        # The violation shows at the COMMIT only.
        tasks += [
            asyncio.create_task(alone(database, text("PRAGMA defer_foreign_keys = ON"))),
            asyncio.create_task(alone(database, insert(ThumbnailRow).values(orphan))),
        ]
        tasks += adding(database, after)
        await submitted(tasks)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] is None
    # The others cannot have caused it: an image must not be charged with an attempt for its neighbour's fault.
    assert [type(outcome) for outcome in outcomes[1:]] == [DatabaseUnavailable] * 4
    assert not any(outcome.unchanged for outcome in outcomes if isinstance(outcome, DatabaseUnavailable))
    assert await existing(database, first, before, after) == {first.id}
    await add(database, after)
    assert await existing(database, after) == {after.id}


async def test_error_that_ends_the_transaction_fails_its_whole_group(database: Database) -> None:
    first, before, after = upload(), upload(), upload()
    with held(database) as gate:
        tasks = adding(database, first)
        await gate.reached()
        tasks += adding(database, before)
        # SQLite does the same by itself when the disk is full.
        ends = text(f"INSERT OR ROLLBACK INTO images SELECT * FROM images WHERE id = '{first.id.hex}'")  # noqa: S608
        tasks += [asyncio.create_task(alone(database, ends)), *adding(database, after)]
        await submitted(tasks)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), DatabaseUnavailable, IntegrityError, type(None)]
    assert isinstance(outcomes[1], DatabaseUnavailable)
    assert outcomes[1].unchanged
    assert await existing(database, before, after) == {after.id}


async def test_transaction_that_sqlite_has_ended_commits_nothing_more(database: Database) -> None:
    first, later = upload(), upload()
    await add(database, first)
    ends = text(f"INSERT OR ROLLBACK INTO images SELECT * FROM images WHERE id = '{first.id.hex}'")  # noqa: S608

    async def go_on() -> None:
        async with database.transaction() as repositories:
            with pytest.raises(IntegrityError):
                await repositories.connection.execute(ends)
            await repositories.images.add(later, lane=Lane.NORMAL, due_in=60)

    with pytest.raises(IntegrityError):
        await go_on()
    assert await existing(database, later) == set()
    await add(database, later)


async def test_cancelled_unit_that_waits_is_dropped(database: Database) -> None:
    first, dropped, kept = upload(), upload(), upload()
    with held(database) as gate:
        tasks = adding(database, first)
        await gate.reached()
        tasks += adding(database, dropped, kept)
        await submitted(tasks)
        tasks[1].cancel()
        await asyncio.wait({tasks[1]})
    await asyncio.gather(tasks[0], tasks[2])
    assert tasks[1].cancelled()
    assert await existing(database, first, dropped, kept) == {first.id, kept.id}


async def test_unit_cancelled_in_the_middle_of_its_work_has_no_effect(database: Database) -> None:
    dropped, kept = upload(), upload()
    gate = OnInsert()
    event.listen(database.engine, "after_cursor_execute", gate.pass_by)
    tasks = adding(database, dropped, kept)
    await gate.reached()
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    gate.open()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
    assert await existing(database, dropped, kept) == {kept.id}


class OnInsert(Gate):
    """Holds the thread after an INSERT."""

    def pass_by(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:  # type: ignore[override]
        if statement.startswith("INSERT"):
            super().pass_by()


async def test_unit_cancelled_during_the_commit_ends_with_its_group(database: Database) -> None:
    original = upload()
    with held(database) as gate:
        tasks = adding(database, original)
        await gate.reached()
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        assert tasks[0].cancelled()
    await add(database, upload())
    assert await existing(database, original) == {original.id}


async def test_failed_or_timed_out_writer_does_not_block_the_others(database: Database) -> None:
    original = upload()

    async def fail() -> None:
        async with database.transaction() as repositories:
            await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(recorded(database), SHORT)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    await add(database, original)
    assert await status_of(database, original.id) == "NEW"


@pytest.mark.parametrize("change", [add, add_alone])
async def test_unit_that_waits_for_too_long_is_an_outage_without_effect(
    change: Callable[[Database, Original], Awaitable[None]], database: Database, sqlite_url: str
) -> None:
    original, impatient = upload(), Database(sqlite_url, time_limit=SHORT)
    with held(impatient) as gate:
        tasks = adding(impatient, upload())
        await gate.reached()
        with pytest.raises(DatabaseUnavailable) as caught:
            await change(impatient, original)
        assert caught.value.unchanged
    await asyncio.gather(*tasks)
    await impatient.close()
    assert await existing(database, original) == set()


@pytest.mark.parametrize("change", [add, add_alone])
async def test_commit_slower_than_the_time_limit_is_no_outage(
    change: Callable[[Database, Original], Awaitable[None]], sqlite_url: str
) -> None:
    limit = 0.5 * slowness()
    database = Database(sqlite_url, time_limit=limit)
    event.listen(database.engine, "commit", lambda _: time.sleep(1.2 * limit), once=True)
    original = upload()
    await change(database, original)  # raises DatabaseUnavailable if the commit is given up, although it takes effect
    assert await status_of(database, original.id) == "NEW"
    await database.close()


@pytest.fixture
def other_process(sqlite_url: str) -> Iterator[sqlite3.Connection]:
    """Holds the lock of the file."""
    with closing(sqlite3.connect(sqlite_url.partition(":///")[2], isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def test_lock_of_another_process_is_waited_for(database: Database, other_process: sqlite3.Connection) -> None:
    originals = [upload() for _ in range(3)]
    tasks = adding(database, *originals)
    # Long enough to connect and fail, if the first connection did not wait.
    done, _ = await asyncio.wait(tasks, timeout=0.3)
    assert not done
    other_process.execute("ROLLBACK")
    await asyncio.gather(*tasks)
    assert len(await existing(database, *originals)) == 3


async def test_lock_that_another_process_keeps_is_an_outage_without_effect(
    sqlite_url: str, other_process: sqlite3.Connection
) -> None:
    database = Database(sqlite_url, time_limit=SHORT)
    originals = [upload() for _ in range(3)]
    outcomes = await asyncio.gather(*adding(database, *originals), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    assert all(outcome.unchanged for outcome in outcomes if isinstance(outcome, DatabaseUnavailable))
    other_process.execute("ROLLBACK")
    await eventually(lambda: database.connections[0] == 0)
    await database.close()
    with closing(sqlite3.connect(sqlite_url.partition(":///")[2])) as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone() == (0,)


async def test_closing_commits_what_waits(sqlite_url: str) -> None:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    originals = [upload() for _ in range(3)]
    with held(database) as gate:
        tasks = adding(database, originals[0])
        await gate.reached()
        tasks += adding(database, *originals[1:])
        closed = asyncio.create_task(database.close())
        await submitted([*tasks, closed])
    await asyncio.gather(*tasks, closed)
    with closing(sqlite3.connect(sqlite_url.partition(":///")[2])) as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone() == (3,)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("writer", "reader"))]


@pytest.mark.parametrize(("most", "longest", "groups"), [(2, 60.0, 2), (64, 0.0, 4), (64, 60.0, 1)])
async def test_group_is_bounded(
    most: int, longest: float, groups: int, database: Database, commits: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "_MOST", most)
    monkeypatch.setattr(sqlite_writer, "_LONGEST", longest)
    with held(database) as gate:
        tasks = adding(database, upload())
        await gate.reached()
        commits.clear()
        tasks += adding(database, *(upload() for _ in range(4)))
        await submitted(tasks)
    await asyncio.gather(*tasks)
    assert len(commits) == groups


async def test_transaction_does_not_delay_the_commit_of_those_before_it(
    database: Database, commits: list[None]
) -> None:
    async with AsyncExitStack() as stack:
        with held(database) as gate:
            tasks = adding(database, upload())
            await gate.reached()
            tasks += adding(database, upload())
            await submitted(tasks)
            transaction = await stack.enter_async_context(database.transaction())
            change = asyncio.create_task(transaction.images.add(upload(), lane=Lane.NORMAL, due_in=60))
            await asyncio.sleep(0)
        await change
        await asyncio.gather(*tasks)
        assert len(commits) == 2
    assert len(commits) == 3


async def test_reads_of_a_transaction_see_its_changes_and_others_do_not(database: Database) -> None:
    original = upload()
    async with database.transaction() as repositories:
        assert await repositories.images.existing([original.id]) == set()
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)
        assert await repositories.images.existing([original.id]) == {original.id}
        assert await existing(database, original) == set()
    assert await existing(database, original) == {original.id}


async def test_what_is_not_known_to_read_only_goes_to_the_writer(database: Database) -> None:
    original = upload()
    await add(database, original)
    await execute(database, text("UPDATE images SET width = 7"))
    assert (await in_transaction(database, lambda r: r.images.get(original.id))).header.width == 7  # type: ignore[union-attr]
