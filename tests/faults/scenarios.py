"""Stories in which something goes wrong that one death alone does not show: each with the settings that it needs.

Where one layer of defence is to be seen at work, the others are asleep. That is done by settings only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from harness.images import encoded, gradient
from harness.waiting import eventually
from tests.faults import queues
from tests.faults.failpoints import ALWAYS, Action, Failpoint
from tests.faults.history import OK, Picture
from tests.faults.host import HOUR, Host
from tests.faults.kill_points import PHOTO

ASLEEP: Final = {"RECONCILE_INTERVAL": "3600", "UNQUEUED_AFTER": "3600", "UNCLAIMED_AFTER": "3600"}
"""The reconciler looks once, at the start, and only after what a worker has claimed."""
LEASE: Final = 61.0
"""Seconds after which a claim is over."""
LOST: Final = "claim lost"
OUTAGE: Final = "attempt ended by an outage"
LIMIT: Final = 20.0
SYNCS: Final = (
    "storage.sync",
    *(f"{kind}.{sync}" for kind in ("original", "thumbnail") for sync in ("sync", "sync-shards", "sync-shard")),
)
"""Every sync that there is once the storage's own folder is there."""
POSTER: Final = encoded(gradient(1600, 1200), "PNG")
"""Too large for the express lane."""
KEY: Final = "the-client's-own"

Steps: TypeAlias = Callable[[Host], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story; when it is over, everything runs, and the checker judges what has come of it."""

    name: str
    tells: str
    play: Steps
    settings: Mapping[str, str]


SCENARIOS: Final[dict[str, Scenario]] = {}


def _scenario(**settings: str) -> Callable[[Steps], Steps]:
    def told(play: Steps) -> Steps:
        name = getattr(play, "__name__", "")
        tells = (play.__doc__ or "").splitlines()[0]
        SCENARIOS[name] = Scenario(name=name, tells=tells, play=play, settings=settings)
        return play

    return told


# The power fails.


@_scenario()
async def power_fails_after_acceptance(host: Host) -> None:
    """The machine loses its power as soon as an image is recorded."""
    await _die(host, "api", "after add.commit")
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@_scenario()
async def power_fails_after_done(host: Host) -> None:
    """The machine loses its power as soon as an image is DONE."""
    await _die(host, "worker", "after complete.commit")
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@_scenario()
async def power_fails_after_others_made_the_folders(host: Host) -> None:
    """The folders were made by a process that died before it had synced them; then the power fails, too."""
    point = Failpoint.at("before disk.sync", Action.KILL)
    await host.start("worker", point)
    await host.wait_for_death("worker", point)
    await power_fails_after_acceptance(host)


# A process dies.


@_scenario()
async def api_dies_before_it_publishes(host: Host) -> None:
    """The API dies when an image is recorded and not queued."""
    await _die(host, "api", "before publish")
    await host.advance_time()
    await host.start_all()


@_scenario()
async def api_dies_before_the_file_has_its_name(host: Host) -> None:
    """The API dies when a file is received and not stored."""
    await _die(host, "api", "before original.rename")
    await host.advance_time()
    await host.start_all()


@_scenario()
async def api_dies_before_it_records(host: Host) -> None:
    """The API dies when a file is stored and not recorded."""
    await _die(host, "api", "before add")
    await host.advance_time()
    await host.start_all()


@_scenario(SWEEP_INTERVAL="3600")
async def api_dies_while_it_deletes(host: Host) -> None:
    """The API dies when an image is deleted and its files are not, and the sweeper is asleep."""
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


@_scenario()
async def worker_dies_when_an_image_is_done(host: Host) -> None:
    """The worker dies after the commit that says DONE."""
    await _die(host, "worker", "after complete.commit")
    await host.start("worker")


@_scenario(**ASLEEP)
async def worker_dies_with_a_backlog(host: Host) -> None:
    """The worker dies as soon as it has acknowledged the last message of a backlog, and nobody looks after the rest."""
    backlog = 6
    await host.start("api")
    for _ in range(backlog):
        await host.upload_accepted(PHOTO)
    dies = Failpoint.at(f"after ack {backlog}", Action.KILL)
    await host.start("worker", dies, Failpoint.at("before render", Action.DELAY, times=ALWAYS, seconds=0.2))
    await host.wait_for_death("worker", dies)
    await host.advance_time(LEASE)
    await host.start("worker")


@_scenario(MAX_ATTEMPTS="2")
async def image_takes_its_worker_with_it(host: Host) -> None:
    """An image kills every worker that renders it."""
    point = Failpoint.at("before render", Action.KILL)
    await host.start("api")
    await host.upload_accepted(PHOTO, picture=Picture.POISON)
    for _ in range(2):
        await host.start("worker", point)
        await host.wait_for_death("worker", point)
        await host.advance_time(LEASE)
    await host.start("worker")


@_scenario()
async def reconciler_dies_before_it_publishes(host: Host) -> None:
    """The reconciler dies when it has taken an image for publishing."""
    await _die(host, "api", "before publish")
    await host.advance_time()
    point = Failpoint.at("after reserve_for_publish.commit", Action.KILL)
    await host.start("worker", point)
    await host.wait_for_death("worker", point)
    await host.advance_time()
    await host.start_all()


# A process stands still, or is slow.


@_scenario()
async def worker_resumes_after_its_lease(host: Host) -> None:
    """A worker stands still between its thumbnails and their rows, until another has the image and they are swept."""
    stops = Failpoint.at("after adopt", Action.STOP)
    holds = Failpoint.at("before render", Action.HOLD)
    await host.start("api")
    # It takes images ahead: the broker gives it the message for the other one, too, until it is missed.
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


@_scenario(**ASLEEP)
async def worker_is_faster_than_the_note(host: Host) -> None:
    """An image is DONE before the API notes that it is queued."""
    holds = Failpoint.at("before mark_queued", Action.HOLD)
    api = await host.start("api", holds)
    await host.start("worker")
    upload = asyncio.create_task(host.upload(PHOTO))
    await api.wait_until_reached(holds)
    snapshot = await host.wait_for(lambda snapshot: "DONE" in _states(snapshot.images))
    await host.status(next(iter(snapshot.images)))
    api.release(holds)
    await upload


@_scenario(**ASLEEP)
async def commit_is_slow(host: Host) -> None:
    """The database takes a second to commit an image, and a worker waits for messages meanwhile."""
    await host.start("api", Failpoint.at("before add.commit", Action.DELAY, seconds=1))
    await host.start("worker")
    await host.upload_accepted(PHOTO)


@_scenario(ORPHAN_GRACE="60")
async def sweeper_comes_before_the_row(host: Host) -> None:
    """A file waits for its row for a second, and the sweeper comes by."""
    await host.start("worker")
    await host.start("api", Failpoint.at("before add", Action.DELAY, seconds=1.5))
    await host.upload_accepted(PHOTO)


@_scenario(ORPHAN_GRACE="60")
async def disk_is_slow(host: Host) -> None:
    """Every sync takes a second."""
    slow = [Failpoint.at(f"before {sync}", Action.DELAY, times=ALWAYS, seconds=1) for sync in SYNCS]
    await host.start("worker", *slow)
    await host.start("api", *slow)
    await asyncio.gather(*(host.upload_accepted(PHOTO) for _ in range(3)))


# A reply gets lost.


@_scenario()
async def reply_to_recording_is_lost(host: Host) -> None:
    """The row is committed, and the API never gets to know; the client tries again."""
    await host.start("api", Failpoint.at("after add.commit", Action.FAIL, times=ALWAYS))
    answer = await host.upload(PHOTO, key=KEY)
    assert answer.status_code == 503, answer
    await host.kill("api")
    await host.advance_time()
    await host.start_all()
    await host.upload_accepted(PHOTO, key=KEY)


@_scenario()
async def reply_to_recording_is_lost_once(host: Host) -> None:
    """The row is committed, and the API gets to know when it tries again."""
    await host.start("worker")
    await host.start("api", Failpoint.at("after add.commit", Action.FAIL))
    await host.upload_accepted(PHOTO, key=KEY)


@_scenario()
async def reply_to_the_claim_is_lost(host: Host) -> None:
    """The claim is committed, and the worker never gets to know."""
    point = Failpoint.at("after claim.commit", Action.FAIL)
    await host.start("api")
    worker = await host.start("worker", point)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(point)
    await host.advance_time(LEASE)


@_scenario()
async def reply_to_the_end_is_lost(host: Host) -> None:
    """DONE is committed, and the worker gets to know only that the claim is over."""
    await host.start("api")
    await host.start("worker", Failpoint.at("after complete.commit", Action.FAIL))
    await host.upload_accepted(PHOTO)


@_scenario()
async def reply_to_the_note_is_lost(host: Host) -> None:
    """The note that an image is queued is committed, and the API never gets to know."""
    await host.start("worker")
    await host.start("api", Failpoint.at("after mark_queued.commit", Action.FAIL))
    await host.upload_accepted(PHOTO)


@_scenario()
async def confirm_is_lost(host: Host) -> None:
    """The broker has the message, and the API never gets to know."""
    await host.start("api", Failpoint.at("after publish", Action.FAIL))
    await host.upload_accepted(PHOTO)
    await host.advance_time()
    await host.start("worker")


# Something is away for a while, or forgets.


@_scenario(MAX_ATTEMPTS="1")
async def storage_is_away(host: Host) -> None:
    """The storage is away for as long as it takes to try an image three times, and one attempt is all it has."""
    holds = Failpoint.at("before local_path", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    aside = host.storage.with_name("unmounted")
    host.storage.rename(aside)
    worker.release(holds)

    async def tried_thrice() -> bool:
        ended = "ERROR" in _states((await host.snapshot()).images)
        return ended or worker.log.read_text().count(OUTAGE) >= 3

    await eventually(tried_thrice, timeout=LIMIT)
    aside.rename(host.storage)


@_scenario(**ASLEEP)
async def queue_is_gone(host: Host) -> None:
    """Somebody deletes the queue, and nobody listens at it."""
    await host.start("api")
    await queues.delete(host.broker, queues.EXPRESS)
    await host.upload_accepted(PHOTO)
    await host.start("worker")


@_scenario()
async def queue_is_gone_under_load(host: Host) -> None:
    """Somebody deletes the queue while images come in and are worked on."""
    await host.start_all()
    load = asyncio.gather(*(host.upload_accepted(PHOTO) for _ in range(20)))
    await host.wait_for(lambda snapshot: "DONE" in _states(snapshot.images))
    await queues.delete(host.broker, queues.EXPRESS)
    await load
    await host.advance_time()


@_scenario(UNCLAIMED_AFTER="7200")
async def broker_forgets(host: Host) -> None:
    """The broker loses all messages, and it is not yet time to look after each image."""
    await host.start("api")
    for _ in range(3):
        await host.upload_accepted(PHOTO)
    await queues.empty(host.broker)
    await host.advance_time(HOUR)
    await host.start("worker")


@_scenario(DECODE_SLOTS="4", MAX_ATTEMPTS="2")
async def message_comes_five_times(host: Host) -> None:
    """The message of an image that is being worked on comes four times more."""
    holds = Failpoint.at("before render", Action.HOLD, times=ALWAYS)
    ignored = Failpoint.at("after ack 3", Action.DELAY)
    await host.start("api")
    worker = await host.start("worker", holds, ignored)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    await queues.send(host.broker, queues.EXPRESS, image_id, times=4)
    await worker.wait_until_reached(ignored)
    worker.release(holds)


# The database's clock jumps. To those who only ever compare, it is the same whether it does or all times do.


@_scenario()
async def clock_is_put_forward(host: Host) -> None:
    """The database's clock is put forward by an hour, twice: every lease is over, and every image due."""
    holds = Failpoint.at("before render", Action.HOLD, times=ALWAYS)
    await host.start("api")
    workers = [await host.start(name, holds) for name in ("worker-1", "worker-2")]
    await host.upload_accepted(PHOTO)
    for attempts in (1, 2, 3):
        await host.wait_for(lambda snapshot: attempts in [row["attempt"] for row in snapshot.images.values()])  # noqa: B023  (awaited here)
        await host.advance_time(HOUR)
    for worker in workers:
        worker.release(holds)


@_scenario()
async def clock_is_put_back(host: Host) -> None:
    """The database's clock is put back by an hour while an image is worked on, another waits, and a third comes."""
    holds = Failpoint.at("before render", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    await host.upload_accepted(PHOTO)
    await host.advance_time(-HOUR)
    await host.upload_accepted(PHOTO)
    worker.release(holds)


# Somebody wants an image gone, or made again, while it is worked on.


@_scenario()
async def image_is_deleted_while_it_is_worked_on(host: Host) -> None:
    """An image is deleted when its thumbnails are stored and not recorded."""
    holds = Failpoint.at("after adopt", Action.HOLD)
    await host.start("api")
    worker = await host.start("worker", holds)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(holds)
    assert (await host.delete(image_id)).outcome == OK
    worker.release(holds)
    await eventually(lambda: LOST in worker.log.read_text(), timeout=LIMIT)


@_scenario()
async def image_is_deleted_while_its_worker_stands_still(host: Host) -> None:
    """An image is deleted when its thumbnails are stored and not recorded, and its worker dies before it knows."""
    dies = Failpoint.at("after adopt", Action.STOP)
    await host.start("api")
    worker = await host.start("worker-1", dies)
    image_id = await host.upload_accepted(PHOTO)
    await worker.wait_until_reached(dies)
    assert (await host.delete(image_id)).outcome == OK
    await host.kill("worker-1")
    await host.advance_time()
    await host.start("worker-2")


async def _die(host: Host, role: str, where: str) -> None:
    """Upload an image, of which the API or the worker dies."""
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
