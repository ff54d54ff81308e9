"""Records how PostgreSQL executes each query of the program, on tables of any size."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from harness.fakes import TRAITS
from image_service.database import Repositories
from image_service.database.outputs import LackingImage
from image_service.database.scheduling import UnfinishedImage
from image_service.domain.event import START, Position
from image_service.domain.image import (
    Claim,
    ImageError,
    ImageFormat,
    ImageHeader,
    LateResult,
    Original,
    Result,
    Thumbnail,
)
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status

RUNS: Final = 7
"""After five, PostgreSQL may use one plan of a prepared statement for all parameters."""
PRIMARY_KEY: Final = "pk_images"

_FILL: Final = """
    INSERT INTO images (
        id, status, format, width, height, size_bytes, sha256, idempotency_key, lane, attempt, attempts_charged,
        lease_until, queued_at, publishes, due_at, error_code, error_detail, placeholder, dominant_colour,
        metadata_removed, recipe, created_at, updated_at, finished_at, original_removed_at, outputs_due_at,
        outputs_lease_until
    )
    SELECT
        (lpad(to_hex((extract(epoch FROM uploaded) * 1000)::bigint), 12, '0')
            || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid,
        status, 'jpeg', 4000, 3000, 3500000, md5(n::text) || md5((-n)::text),
        CASE WHEN n % 2 = 0 THEN 'key-' || n END,
        CASE WHEN reprocessed THEN 'backfill' WHEN n % 3 = 0 THEN 'normal' ELSE 'express' END,
        attempt, attempt,
        CASE WHEN attempt > 0 AND unfinished THEN clock_timestamp() + due * interval '1 second' END,
        CASE WHEN status <> 'NEW' THEN uploaded END,
        0,
        CASE WHEN unfinished THEN clock_timestamp() + due * interval '1 second' END,
        CASE WHEN status = 'ERROR' THEN 'corrupt-image' END,
        CASE WHEN status = 'ERROR' THEN 'The file is damaged.' END,
        CASE WHEN status = 'DONE' THEN 'k0oGLQaSVsN0BVhn2oq2Z5SQUQcZ' END,
        CASE WHEN status = 'DONE' THEN '#8b5a2b' END,
        CASE WHEN status = 'DONE' THEN '["exif"]'::json END,
        CASE WHEN status = 'DONE' THEN :recipe END,
        uploaded,
        uploaded + interval '1 second',
        CASE WHEN reprocessed OR NOT unfinished THEN uploaded + interval '1 second' END,
        CASE WHEN NOT unfinished AND n <= :count / 2 THEN uploaded + interval '90 days' END,
        CASE WHEN lacking THEN clock_timestamp() + (CASE WHEN n % 2 = 0 THEN 60 ELSE -5 END) * interval '1 second' END,
        CASE WHEN lacking AND n % 2 = 0 THEN clock_timestamp() + interval '60 seconds' END
    FROM (
        SELECT
            n, uploaded, reprocessed, unfinished,
            NOT unfinished AND n > :count / 2 AND n % 125 = 33 AS lacking,
            CASE
                WHEN reprocessed OR (unfinished AND n % 10 IN (0, 1)) THEN 'NEW'
                WHEN unfinished THEN 'PROCESSING'
                WHEN n % 100 = 50 THEN 'ERROR'
                ELSE 'DONE'
            END AS status,
            CASE WHEN NOT unfinished OR n % 10 IN (2, 3) THEN 1 ELSE 0 END AS attempt,
            CASE WHEN n % 10 IN (1, 2) THEN -5 ELSE 60 + n % 300 END AS due
        FROM (
            SELECT
                n,
                clock_timestamp() - (:count - n) * interval '180 days' / :count AS uploaded,
                n % 250 = 17 AS reprocessed,
                n % 250 = 17 OR n > :count * 0.994 AS unfinished
            FROM generate_series(1, :count) AS n
        ) AS numbered
    ) AS described
    ORDER BY n
"""
"""Half a year of images; the newest 0.6 % are unfinished in every way, and so are 0.4 % that are reprocessed; another
0.4 % lack outputs."""

_THUMBNAILS: Final = """
    INSERT INTO thumbnails (image_id, preset, key, content_type, width, height, size_bytes, sha256)
    SELECT id, preset, 'thumbnails/' || right(id::text, 2) || '/' || id || '.1.' || preset, 'image/jpeg',
        100, 75, 3000, sha256
    FROM images, unnest(CAST(:outputs AS text[])) AS preset
    WHERE status = 'DONE' OR lane = 'backfill'
    ORDER BY created_at
"""
_REMOVALS: Final = """
    INSERT INTO removals (key, due_at)
    SELECT 'originals/' || n, clock_timestamp() + (n % 100 - 10) * interval '1 second'
    FROM generate_series(1, :count / 100) AS n
"""
_EVENTS: Final = """
    INSERT INTO events (transaction_id, type, image_id, happened_at, snapshot)
    SELECT
        3 + row_number() OVER (ORDER BY created_at) * 500 / :count, type, id, created_at,
        json_build_object('status', 'NEW', 'format', 'jpeg')
    FROM images, unnest(ARRAY['image.accepted', 'image.done']) AS type
    ORDER BY created_at
"""
"""Two of each image, whose transactions are older than any that runs."""
_WEBHOOKS: Final = """
    INSERT INTO webhooks (id, url, secret, created_at, updated_at)
    SELECT md5(n::text)::uuid, 'https://example.org/' || n, 'whsec_', clock_timestamp(), clock_timestamp()
    FROM generate_series(1, 10) AS n
"""
_DELIVERIES: Final = """
    INSERT INTO deliveries (webhook_id, event_number, status, attempt, tries, due_at, created_at)
    SELECT
        md5((1 + number % 10)::text)::uuid, number,
        CASE WHEN number % 250 = 0 THEN 'pending' ELSE 'delivered' END, 1, 1,
        CASE WHEN number % 250 = 0 THEN clock_timestamp() + (number % 100 - 10) * interval '1 second' END,
        happened_at
    FROM events
"""
"""One of each event, to one of ten endpoints; 0.4 % are pending."""
_ATTEMPTS: Final = """
    INSERT INTO delivery_attempts (delivery_id, attempt, made_at, milliseconds, status)
    SELECT id, 1, created_at, 12, 204 FROM deliveries WHERE status = 'delivered'
"""
_WEBHOOK: Final = UUID("c4ca4238-a0b9-2382-0dcc-509a6f75849b")
"""The endpoint that has all pending deliveries: the MD5 of ``1``."""
_ONE_PAGE: Final = frozenset({"identity", "event_positions", "webhooks"})
"""Tables of a few rows: no index makes reading them cheaper."""


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Examples of every kind of image, as arguments of the queries."""

    done: UUID
    failed: UUID
    new: UUID
    unclaimed: UUID
    held: Claim
    due: UnfinishedImage
    middle: UUID
    """The image in the middle of all, by age."""
    page: tuple[UUID, ...]
    """A hundred images that are DONE."""
    key: str
    """An idempotency key."""
    lacking: UUID
    """Lacks outputs, which no worker makes."""
    outputs_held: Claim
    """A claim on outputs."""
    outputs_due: LackingImage
    position: Position
    """Of an event in the middle of all."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One of the program's queries."""

    name: str
    run: Callable[[Repositories, Subjects], Awaitable[object]]
    index: str
    """The index that must find the images, or the removals; thumbnails are found by their primary key."""
    or_index: str = ""
    """Another index that may find them as cheaply."""
    examines: int = 1000
    """The most rows that it may read while a few hundred images are unfinished, however many there are in all."""

    def complaint(self, plans: list["Plan"]) -> str | None:
        """What is wrong with its plans, or None."""
        if whole := {table for plan in plans for table in plan.read_whole} - _ONE_PAGE:
            return f"scans the whole of {whole}"
        used = {index for plan in plans for index in plan.indexes}
        if self.index and not used & {self.index, self.or_index}:
            return f"does not use {self.index}"
        return None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How PostgreSQL executed a statement."""

    statement: str
    tree: dict[str, Any]

    @property
    def nodes(self) -> Iterator[dict[str, Any]]:
        """All steps, the outermost first."""
        waiting = [self.tree]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.get("Plans", []))

    @property
    def indexes(self) -> set[str]:
        """The names of the indexes that were read."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def read_whole(self) -> set[str]:
        """The tables that were scanned sequentially."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    @property
    def examined(self) -> int:
        """Rows of tables that were read, including those that a filter removed."""
        return sum(
            int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
            for node in self.nodes
            if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Index Scan"
        )

    @property
    def buffers(self) -> int:
        """Pages of 8 KB that were read."""
        return int(self.tree["Shared Hit Blocks"] + self.tree["Shared Read Blocks"])

    @property
    def milliseconds(self) -> float:
        """The execution time."""
        return float(self.tree["Actual Total Time"])


ORIGINAL: Final = Original(
    id=UUID("01900000-0000-7000-8000-000000000001"),
    header=ImageHeader(format=ImageFormat.JPEG, width=40, height=30),
    size_bytes=1,
    sha256="ab" * 32,
)
RESULT: Final = Result(
    width=40,
    height=30,
    thumbnails=tuple(
        Thumbnail(
            output=preset.name,
            key=f"thumbnails/{preset.name}",
            content_type="image/jpeg",
            width=40,
            height=30,
            size_bytes=1,
            sha256="ab" * 32,
        )
        for preset in DEFAULT_RECIPE.presets
    ),
    traits=TRAITS,
    recipe=DEFAULT_RECIPE.fingerprint,
)
LATE_RESULT: Final = LateResult(
    recipe=DEFAULT_RECIPE.fingerprint,
    left_out={"300x300": "0" * 16},
    made=RESULT.thumbnails[:1],
    removed=("100x100",),
    known={"300x300": "0" * 16},
)
DAYS: Final = 86_400.0

QUERIES: Final = (
    Query(name="status", run=lambda r, s: r.images.get(s.done), index=PRIMARY_KEY),
    Query(name="status by key", run=lambda r, s: r.images.by_idempotency_key(s.key), index="ux_images_idempotency_key"),
    Query(
        name="add",
        run=lambda r, _: r.images.add(ORIGINAL, lane=Lane.EXPRESS, due_in=15, idempotency_key="new"),
        index="",
    ),
    Query(name="mark queued", run=lambda r, s: r.scheduling.mark_queued(s.new, due_in=300), index=PRIMARY_KEY),
    Query(name="claim", run=lambda r, s: r.claims.claim(s.unclaimed, lease=60), index=PRIMARY_KEY),
    Query(name="extend", run=lambda r, s: r.claims.extend(s.held, lease=60), index=PRIMARY_KEY),
    Query(name="complete", run=lambda r, s: r.claims.complete(s.held, RESULT, superseded_for=60), index=PRIMARY_KEY),
    Query(
        name="fail",
        run=lambda r, s: r.claims.fail(s.held, ImageError(code="corrupt-image", detail="…")),
        index=PRIMARY_KEY,
    ),
    Query(
        name="release",
        run=lambda r, s: r.claims.release(s.held, rest=1, due_in=1, charge=True),
        index=PRIMARY_KEY,
    ),
    Query(name="due", run=lambda r, _: r.scheduling.due(limit=100), index="ix_images_due_at"),
    Query(
        name="unclaimed",
        run=lambda r, _: r.scheduling.unclaimed(Lane.EXPRESS, queued_before=15, limit=100),
        index="ix_images_unclaimed",
    ),
    Query(
        name="unclaimed: none",
        run=lambda r, _: r.scheduling.unclaimed(Lane.BACKFILL, queued_before=15, limit=100),
        index="ix_images_unclaimed",
        examines=0,
    ),
    Query(
        name="postpone",
        run=lambda r, _: r.scheduling.postpone(Lane.EXPRESS, messages=0, queued_before=0, due_in=300),
        index="ix_images_unclaimed",
    ),
    Query(
        name="reserve for publish",
        run=lambda r, s: r.scheduling.reserve_for_publish(s.due, due_in=300),
        index=PRIMARY_KEY,
        or_index="ix_images_due_at",
    ),
    Query(name="claim outputs", run=lambda r, s: r.outputs.claim_outputs(s.lacking, lease=60), index=PRIMARY_KEY),
    Query(
        name="extend outputs", run=lambda r, s: r.outputs.extend_outputs(s.outputs_held, lease=60), index=PRIMARY_KEY
    ),
    Query(
        name="release outputs",
        run=lambda r, s: r.outputs.release_outputs(s.outputs_held, rest=1, due_in=1, charge=True),
        index=PRIMARY_KEY,
    ),
    Query(
        name="complete outputs",
        run=lambda r, s: r.outputs.complete_outputs(s.outputs_held, LATE_RESULT, superseded_for=60),
        index=PRIMARY_KEY,
    ),
    Query(name="outputs due", run=lambda r, _: r.outputs.outputs_due(limit=100), index="ix_images_outputs_due_at"),
    Query(
        name="outputs unclaimed",
        run=lambda r, _: r.outputs.outputs_unclaimed(queued_before=15, limit=100),
        index="ix_images_outputs_due_at",
    ),
    Query(
        name="reserve outputs",
        run=lambda r, s: r.outputs.reserve_outputs(s.outputs_due, due_in=300),
        index=PRIMARY_KEY,
        or_index="ix_images_outputs_due_at",
    ),
    Query(
        name="outputs waiting", run=lambda r, _: r.outputs.outputs_waiting(limit=500), index="ix_images_outputs_due_at"
    ),
    Query(
        name="outputs waiting, of older images",
        run=lambda r, s: r.outputs.outputs_waiting(limit=500, until=s.middle),
        index="ix_images_outputs_due_at",
    ),
    Query(name="resume outputs", run=lambda r, _: r.outputs.resume_outputs(), index="ix_images_outputs_due_at"),
    Query(name="mark outputs due", run=lambda r, s: r.outputs.mark_outputs_due(s.page), index=PRIMARY_KEY),
    Query(name="list", run=lambda r, _: r.catalogue.newest(limit=100), index=PRIMARY_KEY),
    Query(name="list, next page", run=lambda r, s: r.catalogue.newest(limit=100, before=s.middle), index=PRIMARY_KEY),
    Query(
        name="list DONE",
        run=lambda r, s: r.catalogue.newest(limit=100, before=s.middle, status=Status.DONE),
        index=PRIMARY_KEY,
    ),
    *(
        Query(
            name=f"list {status}",
            run=lambda r, s, status=status: r.catalogue.newest(limit=100, before=s.middle, status=status),  # type: ignore[misc]  # a default binds the loop's value
            index="ix_images_not_done",
        )
        for status in (Status.NEW, Status.PROCESSING, Status.ERROR)
    ),
    Query(name="check, next page", run=lambda r, s: r.catalogue.oldest(limit=100, after=s.middle), index=PRIMARY_KEY),
    Query(name="backlog", run=lambda r, _: r.catalogue.open_count(limit=200_000), index="ix_images_due_at"),
    Query(
        name="backlog of a lane",
        run=lambda r, _: r.catalogue.open_count(limit=500, lane=Lane.BACKFILL),
        index="ix_images_due_at",
    ),
    Query(
        name="oldest unfinished", run=lambda r, _: r.catalogue.oldest_unfinished(among=1000), index="ix_images_not_done"
    ),
    Query(name="overdue", run=lambda r, _: r.catalogue.overdue(seconds=3, limit=100), index="ix_images_due_at"),
    Query(
        name="overdue: none",
        run=lambda r, _: r.catalogue.overdue(seconds=DAYS, limit=100),
        index="ix_images_due_at",
        examines=0,
    ),
    Query(name="failed", run=lambda r, s: r.catalogue.failed(limit=100, after=s.middle), index="ix_images_not_done"),
    Query(
        name="failed with a code",
        run=lambda r, _: r.catalogue.failed(limit=100, code="decoder-timeout"),
        index="ix_images_not_done",
    ),
    Query(
        name="outdated",
        run=lambda r, s: r.catalogue.outdated({"default": DEFAULT_RECIPE.fingerprint}, among=500, after=s.middle),
        index=PRIMARY_KEY,
    ),
    Query(
        name="finished before",
        run=lambda r, _: r.catalogue.finished_before(170 * DAYS, limit=100),
        index="ix_images_finished_at",
    ),
    Query(
        name="finished before: none",
        run=lambda r, _: r.catalogue.finished_before(400 * DAYS, limit=100),
        index="ix_images_finished_at",
        examines=0,
    ),
    Query(
        name="original finished before",
        run=lambda r, _: r.catalogue.with_original_finished_before(60 * DAYS, limit=100),
        index="ix_images_with_original",
    ),
    Query(
        name="original finished before: none",
        run=lambda r, _: r.catalogue.with_original_finished_before(400 * DAYS, limit=100),
        index="ix_images_with_original",
        examines=0,
    ),
    Query(name="reprocess", run=lambda r, s: r.images.reprocess(s.page, due_in=0), index=PRIMARY_KEY),
    Query(name="make due", run=lambda r, s: r.scheduling.make_due([s.unclaimed, s.done]), index=PRIMARY_KEY),
    # Locked, shown in their events with their thumbnails, and removed.
    Query(name="remove", run=lambda r, s: r.images.remove(s.page), index=PRIMARY_KEY, examines=1200),
    Query(name="remove originals", run=lambda r, s: r.images.remove_originals(s.page), index=PRIMARY_KEY),
    Query(name="sweep originals", run=lambda r, s: r.images.existing(s.page), index=PRIMARY_KEY),
    Query(name="sweep thumbnails", run=lambda r, s: r.images.thumbnail_keys(s.page), index="pk_thumbnails"),
    Query(
        name="sweep attempts",
        run=lambda r, s: r.claims.attempts_in_progress(s.page),
        index=PRIMARY_KEY,
        or_index="ix_images_not_done",
    ),
    Query(
        name="events after",
        run=lambda r, s: r.events.after(s.position, limit=100),
        index="ix_events_position",
    ),
    Query(
        name="events of an image",
        run=lambda r, s: r.events.after(START, limit=100, image_id=s.done),
        index="ix_events_image",
        examines=10,
    ),
    Query(name="newest event", run=lambda r, _: r.events.head(), index="ix_events_position", examines=10),
    Query(
        name="purge events",
        run=lambda r, _: r.events.purge(older_than=100 * DAYS, kept_after=None, limit=100),
        index="ix_events_position",
    ),
    Query(
        name="purge events: none",
        run=lambda r, _: r.events.purge(older_than=400 * DAYS, kept_after=None, limit=100),
        index="ix_events_position",
        examines=400,
    ),
    Query(name="webhook work", run=lambda r, _: r.deliveries.work(), index="ix_deliveries_due", examines=100),
    Query(name="pass on events", run=lambda r, _: r.deliveries.dispatch(), index="ix_events_position"),
    Query(
        name="claim deliveries",
        run=lambda r, _: r.deliveries.claim({_WEBHOOK: 1}, each=4, lease=60),
        index="ix_deliveries_due",
    ),
    Query(
        name="deliveries of an endpoint",
        run=lambda r, _: r.deliveries.of_webhook(_WEBHOOK, limit=20),
        index="uq_deliveries_webhook_id",
        or_index="ix_deliveries_event",  # if an endpoint has many of all events
    ),
    Query(
        name="end deliveries of disabled endpoints",
        run=lambda r, _: r.deliveries.end_of_disabled(limit=100),
        index="ix_deliveries_due",
    ),
    Query(name="webhook backlog", run=lambda r, _: r.deliveries.backlog(), index="ix_deliveries_due"),
    Query(name="events before", run=lambda r, s: r.events.before(s.position, limit=100), index="ix_events_position"),
    Query(name="removals due", run=lambda r, _: r.removals.due(limit=100), index="ix_removals_due_at"),
)


@asynccontextmanager
async def superuser(url: str) -> AsyncIterator[AsyncConnection]:
    """Open a connection in autocommit mode."""
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def fill(connection: AsyncConnection, count: int, outputs: int = len(RESULT.thumbnails)) -> Subjects:
    """Fill empty tables with images and their thumbnails, and update PostgreSQL's statistics.

    Args:
        connection: A superuser's, in autocommit mode.
        count: How many images.
        outputs: How many thumbnails each has.
    """
    await connection.execute(text("SET session_replication_role = replica"))  # these foreign keys are right
    await connection.execute(text(_FILL), {"count": count, "recipe": DEFAULT_RECIPE.fingerprint})
    await connection.execute(text(_THUMBNAILS), {"outputs": _names(outputs)})
    await connection.execute(text(_REMOVALS), {"count": count})
    await connection.execute(text(_EVENTS), {"count": 2 * count})
    await connection.execute(text(_WEBHOOKS))
    await connection.execute(text(_DELIVERIES))
    await connection.execute(text(_ATTEMPTS))
    await connection.execute(text("RESET session_replication_role"))
    tables = "images, thumbnails, removals, events, webhooks, deliveries, delivery_attempts"
    await connection.execute(text(f"VACUUM (ANALYZE) {tables}"))
    return await _subjects(connection)


def _names(outputs: int) -> list[str]:
    """Names of thumbnails, those of the default recipe first."""
    known = [each.output for each in RESULT.thumbnails]
    return [*known, *(f"output-{number}" for number in range(len(known), outputs))][:outputs]


async def _subjects(connection: AsyncConnection) -> Subjects:
    async def find(condition: str, column: str = "id", order: str = "id") -> Any:  # noqa: ANN401  (the type of the column)
        query = f"SELECT {column} FROM images WHERE {condition} ORDER BY {order} LIMIT 1"  # noqa: S608  (no input of users)
        return (await connection.execute(text(query))).scalar_one()

    page = text("SELECT id FROM images WHERE status = 'DONE' AND original_removed_at IS NULL ORDER BY id LIMIT 100")
    middle = (
        "SELECT transaction_id, number FROM events ORDER BY number OFFSET (SELECT count(*) / 2 FROM events) LIMIT 1"
    )
    held = await find("status = 'PROCESSING' AND lease_until > clock_timestamp()")
    outputs_held = await find("outputs_lease_until IS NOT NULL")
    return Subjects(
        done=await find("status = 'DONE'"),
        failed=await find("status = 'ERROR'"),
        new=await find("status = 'NEW'"),
        unclaimed=await find("status = 'PROCESSING' AND lease_until IS NULL"),
        held=Claim(
            image_id=held, attempt=1, attempts_charged=1, decoder_failures=0, sha256="ab" * 32, reprocessing=True
        ),
        due=(await Repositories(connection).scheduling.due(limit=1))[0],
        middle=await find("created_at > clock_timestamp() - interval '90 days'", order="created_at"),
        page=tuple((await connection.execute(page)).scalars()),
        key=await find("idempotency_key IS NOT NULL", "idempotency_key"),
        lacking=await find("outputs_due_at IS NOT NULL AND outputs_lease_until IS NULL"),
        outputs_held=Claim(
            image_id=outputs_held,
            attempt=1,
            attempts_charged=1,
            decoder_failures=0,
            sha256="ab" * 32,
            reprocessing=True,
        ),
        outputs_due=(await Repositories(connection).outputs.outputs_due(limit=1))[0],
        position=Position(*(await connection.execute(text(middle))).one()),
    )


class Explainer:
    """Runs queries and collects the plans that the server reports through ``auto_explain``."""

    def __init__(self, connection: AsyncConnection, subjects: Subjects) -> None:
        self._connection = connection
        self._subjects = subjects
        self._plans: list[Plan] = []

    async def plans(self, query: Query) -> list[Plan]:
        """The plans of a query's statements on a connection that has executed them before. Changes nothing."""
        for _ in range(RUNS):
            self._plans.clear()
            async with self._connection.begin() as transaction:
                await query.run(Repositories(self._connection), self._subjects)
                await transaction.rollback()
        return list(self._plans)

    def on_log(self, _: object, message: Any) -> None:  # noqa: ANN401  (a type of the driver)
        """Record the plan in a log message, if there is one."""
        _, _, plan = message.message.partition("plan:\n")
        if plan:
            report = json.loads(plan)
            self._plans.append(Plan(statement=report["Query Text"], tree=report["Plan"]))


@asynccontextmanager
async def explainer(url: str, subjects: Subjects) -> AsyncIterator[Explainer]:
    """Return an ``Explainer`` for a database that ``fill`` has filled. Connects as a superuser."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("LOAD 'auto_explain'"))
            options = {"log_min_duration": "0", "log_level": "notice", "log_format": "json"}
            for name, value in {**options, "log_analyze": "on", "log_buffers": "on"}.items():
                await connection.execute(text(f"SET auto_explain.{name} = {value}"))
            await connection.commit()
            explaining = Explainer(connection, subjects)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.add_log_listener(explaining.on_log)
            yield explaining
            driver.remove_log_listener(explaining.on_log)
    finally:
        await engine.dispose()
