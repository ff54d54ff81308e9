"""Fault scenarios that a single kill does not cover, each with its settings; ``output_scenarios`` has more.

Where a scenario tests one layer of defence, its settings disable the others.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from harness.broker import purge_queues
from harness.images import encoded, gradient
from harness.waiting import eventually
from tests.faults import queues
from tests.faults.failpoints import ALWAYS, Action, Failpoint
from tests.faults.history import OK, Picture
from tests.faults.host import HOUR, Host
from tests.faults.kill_points import PHOTO, STANDALONE, upload_group
from tests.faults.scenario import on_sqlite, scenario
from tests.faults.workload import CONNECTIONS

NO_RECONCILER: Final = {"RECONCILE_INTERVAL": "3600", "UNQUEUED_AFTER": "3600", "UNCLAIMED_AFTER": "3600"}
"""The reconciler runs once, at the start, and finds only images whose lease has expired."""
LEASE: Final = 61.0
"""Longer than a claim's lease, in seconds."""
LOST: Final = "claim lost"
OUTAGE: Final = "attempt ended by an outage"
LIMIT: Final = 20.0
SYNCS: Final = (
    "storage.sync",
    *(f"{kind}.{sync}" for kind in ("original", "thumbnail") for sync in ("sync", "sync-shards", "sync-shard")),
)
"""Every sync that happens once the storage folder exists."""
POSTER: Final = encoded(gradient(1600, 1200), "PNG")
"""Too large for the express lane."""
KEY: Final = "idempotency-key"


# The power fails.


@scenario()
async def power_fails_after_acceptance(host: Host) -> None:
    """The power fails as soon as an image is recorded."""
    await _die(host, "api", "after add.commit")
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@scenario()
async def power_fails_after_done(host: Host) -> None:
    """The power fails as soon as an image is DONE."""
    await _die(host, "worker", "after complete.commit")
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@scenario()
async def power_fails_after_another_process_created_the_folders(host: Host) -> None:
    """A process creates the folders and dies before syncing them; later the power fails."""
    point = Failpoint.at("before disk.sync", Action.KILL)
    await host.start("worker", point)
    await host.wait_for_death("worker", point)
    await power_fails_after_acceptance(host)


# A process dies.


@scenario()
async def api_dies_before_it_publishes(host: Host) -> None:
    """The API dies after an image is recorded and before it is queued."""
    await _die(host, "api", "before publish")
    await host.advance_time()
    await host.start_all()


@scenario()
async def api_dies_before_rename(host: Host) -> None:
    """The API dies after a file is received and before it is stored."""
    await _die(host, "api", "before original.rename")
    await host.advance_time()
    await host.start_all()


@scenario()
async def api_dies_before_it_records(host: Host) -> None:
    """The API dies after a file is stored and before it is recorded."""
    await _die(host, "api", "before add")
    await host.advance_time()
    await host.start_all()


@scenario(SWEEP_INTERVAL="3600")
async def api_dies_during_deletion(host: Host) -> None:
    """The API dies after an image's rows are deleted and before its files are; the sweeper does not run."""
    await host.start_all()
    image_id = await host.upload_accepted(PHOTO)
    await host.wait_for_state(image_id, "DONE")
    await host.stop_all()
    dies = Failpoint.at("before delete", Action.KILL)
    await host.start("api", dies)
    await host.delete(image_id)
    await host.wait_for_death("api", dies)
    await host.start_all()
    assert (await host.delete(image_id)).status_code == 404


@scenario()
async def worker_dies_after_done(host: Host) -> None:
    """The worker dies after committing DONE."""
    await _die(host, "worker", "after complete.commit")
    await host.start("worker")


@scenario(**NO_RECONCILER)
async def worker_dies_with_a_backlog(host: Host) -> None:
    """The worker dies as soon as it has acknowledged the last message of a backlog; no reconciler repairs losses."""
    backlog = 6
    await host.start("api")
    for _ in range(backlog):
        await host.upload_accepted(PHOTO)
    dies = Failpoint.at(f"after ack {backlog}", Action.KILL)
    await host.start("worker", dies, Failpoint.at("before render", Action.DELAY, times=ALWAYS, seconds=0.2))
    await host.wait_for_death("worker", dies)
    await host.advance_time(LEASE)
    await host.start("worker")


@scenario(MAX_ATTEMPTS="2")
async def image_kills_every_worker(host: Host) -> None:
    """An image kills every worker that renders it."""
    point = Failpoint.at("before render", Action.KILL)
    await host.start("api")
    await host.upload_accepted(PHOTO, picture=Picture.POISON)
    for _ in range(2):
        await host.start("worker", point)
        await host.wait_for_death("worker", point)
        await host.advance_time(LEASE)
    await host.start("worker")


@scenario()
async def reconciler_dies_before_it_publishes(host: Host) -> None:
    """The reconciler dies after reserving an image and before publishing it."""
    await _die(host, "api", "before publish")
    await host.advance_time()
    point = Failpoint.at("after reserve_for_publish.commit", Action.KILL)
    await host.start("worker", point)
    await host.wait_for_death("worker", point)
    await host.advance_time()
    await host.start_all()


# A process is stopped, or slow.


@scenario()
async def worker_resumes_after_its_lease(host: Host) -> None:
    """A worker is stopped between storing and recording thumbnails until they are swept and another has the claim."""
    stops = Failpoint.at("after adopt", Action.STOP)
    holds = Failpoint.at("before render", Action.HOLD)
    await host.start("api")
    # It prefetches: the broker delivers the requeued message to it, too, until its heartbeat is missed.
    first = await host.start("worker-1", stops, RABBITMQ_URL=f"{host.broker}?heartbeat=1")
    await host.upload_accepted(POSTER)
    await first.wait_until_reached(stops)
    await host.advance_time(LEASE)
    second = await host.start("worker-2", holds)
    await second.wait_until_reached(holds)
    await host.wait_for(lambda snapshot: not any(path.startswith("thumbnails/") for path in snapshot.files))
    first.resume()
    await host.wait_for(lambda snapshot: LOST in first.log.read_text() or "DONE" in _states(snapshot.images))
    second.release(holds)


@scenario(**NO_RECONCILER)
async def image_is_done_before_it_is_marked_queued(host: Host) -> None:
    """An image is DONE before the API marks it as queued."""
    holds = Failpoint.at("before mark_queued", Action.HOLD)
    api = await host.start("api", holds)
    await host.start("worker")
    upload = asyncio.create_task(host.upload(PHOTO))
    await api.wait_until_reached(holds)
    snapshot = await host.wait_for(lambda snapshot: "DONE" in _states(snapshot.images))
    await host.status(next(iter(snapshot.images)))
    api.release(holds)
    await upload


@scenario(**NO_RECONCILER)
async def commit_is_slow(host: Host) -> None:
    """Committing an image takes a second while a worker waits for messages."""
    await host.start("api", Failpoint.at("before add.commit", Action.DELAY, seconds=1))
    await host.start("worker")
    await host.upload_accepted(PHOTO)


@scenario(ORPHAN_GRACE="60")
async def sweeper_runs_before_the_row_is_committed(host: Host) -> None:
    """A file has no row for 1.5 seconds while the sweeper runs."""
    await host.start("worker")
    await host.start("api", Failpoint.at("before add", Action.DELAY, seconds=1.5))
    await host.upload_accepted(PHOTO)


@scenario(ORPHAN_GRACE="60")
async def disk_is_slow(host: Host) -> None:
    """Every sync takes a second."""
    slow = [Failpoint.at(f"before {sync}", Action.DELAY, times=ALWAYS, seconds=1) for sync in SYNCS]
    await host.start("worker", *slow)
    await host.start("api", *slow)
    await asyncio.gather(*(host.upload_accepted(PHOTO) for _ in range(3)))


# A reply is lost.


@scenario()
async def reply_to_recording_is_lost(host: Host) -> None:
    """The row is committed, but every reply to the API is lost; the client retries."""
    await host.start("api", Failpoint.at("after add.commit", Action.FAIL, times=ALWAYS))
    answer = await host.upload(PHOTO, key=KEY)
    assert answer.status_code == 503, answer
    await host.kill("api")
    await host.advance_time()
    await host.start_all()
    await host.upload_accepted(PHOTO, key=KEY)


@scenario()
async def reply_to_recording_is_lost_once(host: Host) -> None:
    """The row is committed, but the first reply to the API is lost."""
    await host.start("worker")
    await host.start("api", Failpoint.at("after add.commit", Action.FAIL))
    await host.upload_accepted(PHOTO, key=KEY)


@scenario()
async def reply_to_claim_is_lost(host: Host) -> None:
    """The claim is committed, but the reply to the worker is lost."""
    point = Failpoint.at("after claim.commit", Action.FAIL)
    await host.start("api")
    worker = await host.start("worker", point)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(point)
    await host.advance_time(LEASE)


@scenario()
async def reply_to_complete_is_lost(host: Host) -> None:
    """DONE is committed, but the reply is lost; on retry the worker learns only that its claim is over."""
    await host.start("api")
    await host.start("worker", Failpoint.at("after complete.commit", Action.FAIL))
    await host.upload_accepted(PHOTO)


@scenario()
async def reply_to_mark_queued_is_lost(host: Host) -> None:
    """The image is marked as queued, but the reply to the API is lost."""
    await host.start("worker")
    await host.start("api", Failpoint.at("after mark_queued.commit", Action.FAIL))
    await host.upload_accepted(PHOTO)


@scenario()
async def confirm_is_lost(host: Host) -> None:
    """The broker has the message, but its confirm is lost."""
    await host.start("api", Failpoint.at("after publish", Action.FAIL))
    await host.upload_accepted(PHOTO)
    await host.advance_time()
    await host.start("worker")


# A dependency is unavailable for a while, or loses data.


@scenario(MAX_ATTEMPTS="1")
async def storage_is_unavailable(host: Host) -> None:
    """The storage is unavailable during three tries of an image that may have one attempt."""
    holds = Failpoint.at("before local_path", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    aside = host.storage.with_name("unmounted")
    host.storage.rename(aside)
    worker.release(holds)

    async def was_tried_three_times() -> bool:
        ended = "ERROR" in _states((await host.snapshot()).images)
        return ended or worker.log.read_text().count(OUTAGE) >= 3

    await eventually(was_tried_three_times, timeout=LIMIT)
    aside.rename(host.storage)


@scenario(MAX_ATTEMPTS="1")
async def database_is_read_only(host: Host) -> None:
    """The database is read-only while the result of an image that may have one attempt is recorded, but not later."""
    holds, fails = Failpoint.at("before render", Action.HOLD), Failpoint.at("before fail", Action.HOLD)
    again = Failpoint.at("before complete 2", Action.DELAY)
    await host.start("api")
    worker = await host.start("worker", holds, again, fails)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    await host.make_database_read_only()
    worker.release(holds)
    notices = [point.notice(worker.folder) for point in (again, fails)]
    await eventually(lambda: any(notice.exists() for notice in notices), timeout=LIMIT)
    await host.make_database_writable()
    await host.terminate_sessions()
    worker.release(fails)


@scenario()
async def read_only_sessions_outlive_the_failover(host: Host) -> None:
    """The database is writable again, but in none of the sessions that the API's pool has opened meanwhile."""
    holds = Failpoint.at("before add", Action.HOLD, times=ALWAYS)
    api = await host.start("api", holds)
    await host.make_database_read_only()
    uploads = asyncio.gather(*(host.upload(PHOTO) for _ in range(CONNECTIONS)))

    async def are_all_open() -> bool:
        return await host.count_sessions() >= CONNECTIONS

    await eventually(are_all_open, timeout=LIMIT)
    api.release(holds)
    await uploads
    await host.make_database_writable()

    async def is_accepted() -> bool:
        return (await host.upload(PHOTO)).outcome == OK

    await eventually(is_accepted, timeout=LIMIT)
    await host.start("worker")


@scenario(**NO_RECONCILER)
async def queue_is_deleted(host: Host) -> None:
    """The queue is deleted just before an image is published. The reconciler would declare it again."""
    holds = Failpoint.at("before publish", Action.HOLD)
    api = await host.start("api", holds)
    upload = asyncio.create_task(host.upload_accepted(PHOTO))
    await api.wait_until_reached(holds)
    await queues.delete(host.broker, queues.EXPRESS)
    api.release(holds)
    await upload
    await host.start("worker")


@scenario()
async def queue_is_deleted_under_load(host: Host) -> None:
    """The queue is deleted while images are uploaded and processed."""
    await host.start_all()
    load = asyncio.gather(*(host.upload_accepted(PHOTO) for _ in range(20)))
    await host.wait_for(lambda snapshot: "DONE" in _states(snapshot.images))
    await queues.delete(host.broker, queues.EXPRESS)
    await load
    await host.advance_time()


@scenario(UNCLAIMED_AFTER="7200")
async def broker_loses_all_messages(host: Host) -> None:
    """The broker loses all messages before any image is due."""
    await host.start("api")
    for _ in range(3):
        await host.upload_accepted(PHOTO)
    await purge_queues(host.broker)
    await host.advance_time(HOUR)
    await host.start("worker")


@scenario(DECODE_SLOTS="4", MAX_ATTEMPTS="2")
async def message_is_delivered_five_times(host: Host) -> None:
    """The message of an image in progress is delivered four more times."""
    holds = Failpoint.at("before render", Action.HOLD, times=ALWAYS)
    ignored = Failpoint.at("after ack 3", Action.DELAY)
    await host.start("api")
    worker = await host.start("worker", holds, ignored)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    await queues.send(host.broker, queues.EXPRESS, image_id, times=4)
    await worker.wait_until_reached(ignored)
    worker.release(holds)


# The database's clock jumps. Times are only compared, so shifting all stored times has the same effect.


@scenario()
async def clock_jumps_forward(host: Host) -> None:
    """The database's clock jumps forward by an hour, three times: every lease expires, and every image is due."""
    holds = Failpoint.at("before render", Action.HOLD, times=ALWAYS)
    await host.start("api")
    workers = [await host.start(name, holds) for name in ("worker-1", "worker-2")]
    await host.upload_accepted(PHOTO)
    for attempts in (1, 2, 3):
        await host.wait_for(lambda snapshot: attempts in [row["attempt"] for row in snapshot.images.values()])  # noqa: B023  (awaited here)
        await host.advance_time(HOUR)
    for worker in workers:
        worker.release(holds)


@scenario()
async def clock_jumps_back(host: Host) -> None:
    """The database's clock jumps back by an hour with one image in progress, one waiting, and one uploaded later."""
    holds = Failpoint.at("before render", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    await host.upload_accepted(PHOTO)
    await host.advance_time(-HOUR)
    await host.upload_accepted(PHOTO)
    worker.release(holds)


# An image is deleted while it is processed.


@scenario()
async def image_is_deleted_during_processing(host: Host) -> None:
    """An image is deleted after its thumbnails are stored and before they are recorded."""
    holds = Failpoint.at("after adopt", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    assert (await host.delete(image_id)).outcome == OK
    worker.release(holds)
    await eventually(lambda: LOST in worker.log.read_text(), timeout=LIMIT)


@scenario()
async def image_is_deleted_while_its_worker_is_stopped(host: Host) -> None:
    """The same, and the worker is killed before it notices."""
    dies = Failpoint.at("after adopt", Action.STOP)
    await host.start("api")
    worker = await host.start("worker-1", dies)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(dies)
    assert (await host.delete(image_id)).outcome == OK
    await host.kill("worker-1")
    await host.advance_time()
    await host.start("worker-2")


# SQLite commits what waits in one go.


@on_sqlite()
async def power_fails_in_a_commit_under_sqlite(host: Host) -> None:
    """The COMMIT of an upload hangs until its client has an answer; then the power fails."""
    hangs = Failpoint.at("before add.commit", Action.HOLD)
    await host.start(STANDALONE, hangs)
    await host.upload(PHOTO)
    await host.processes[STANDALONE].wait_until_reached(hangs)
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@on_sqlite()
async def commit_fails_under_sqlite(host: Host) -> None:
    """The first COMMIT of an upload fails."""
    await host.start(STANDALONE, Failpoint.at("before add.commit", Action.FAIL))
    await host.upload_accepted(PHOTO)


@on_sqlite()
async def upload_fails_in_a_group_under_sqlite(host: Host) -> None:
    """Of several uploads whose COMMIT is one, the last cannot be recorded at first."""
    await upload_group(host, Failpoint.at("before add.work 4", Action.FAIL))


async def _die(host: Host, role: str, where: str) -> None:
    """Upload an image and let the API or the worker die at a failpoint."""
    point = Failpoint.at(where, Action.KILL)
    if role == "api":
        await host.start("api", point)
        await host.upload(PHOTO)
    else:
        await host.start("api")
        await host.start("worker", point)
        await host.upload_accepted(PHOTO)
    await host.wait_for_death(role, point)


def _states(images: Mapping[str, Mapping[str, object]]) -> list[object]:
    return [row["status"] for row in images.values()]
