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
from tests.faults.history import OK, Picture
from tests.faults.machine import HOUR, Machine
from tests.faults.points import ALWAYS, Act, Point
from tests.faults.windows import PHOTO

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

Play: TypeAlias = Callable[[Machine], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story; when it is over, everything runs, and the checker judges what has come of it."""

    name: str
    tells: str
    play: Play
    settings: Mapping[str, str]


SCENARIOS: Final[dict[str, Scenario]] = {}


def _scenario(**settings: str) -> Callable[[Play], Play]:
    def told(play: Play) -> Play:
        name = getattr(play, "__name__", "")
        tells = (play.__doc__ or "").splitlines()[0]
        SCENARIOS[name] = Scenario(name=name, tells=tells, play=play, settings=settings)
        return play

    return told


# The power fails.


@_scenario()
async def power_fails_after_acceptance(machine: Machine) -> None:
    """The machine loses its power as soon as an image is recorded."""
    await _die(machine, "api", "after add.commit")
    await machine.lose_power()
    await machine.time_passes()
    await machine.start_all()


@_scenario()
async def power_fails_after_done(machine: Machine) -> None:
    """The machine loses its power as soon as an image is DONE."""
    await _die(machine, "worker", "after complete.commit")
    await machine.lose_power()
    await machine.time_passes()
    await machine.start_all()


@_scenario()
async def power_fails_after_others_made_the_folders(machine: Machine) -> None:
    """The folders were made by a process that died before it had synced them; then the power fails, too."""
    point = Point.at("before disk.sync", Act.KILL)
    await machine.start("worker", point)
    await machine.died("worker", point)
    await power_fails_after_acceptance(machine)


# A process dies.


@_scenario()
async def api_dies_before_it_publishes(machine: Machine) -> None:
    """The API dies when an image is recorded and not queued."""
    await _die(machine, "api", "before publish")
    await machine.time_passes()
    await machine.start_all()


@_scenario()
async def api_dies_before_the_file_has_its_name(machine: Machine) -> None:
    """The API dies when a file is received and not stored."""
    await _die(machine, "api", "before original.rename")
    await machine.time_passes()
    await machine.start_all()


@_scenario()
async def api_dies_before_it_records(machine: Machine) -> None:
    """The API dies when a file is stored and not recorded."""
    await _die(machine, "api", "before add")
    await machine.time_passes()
    await machine.start_all()


@_scenario(SWEEP_INTERVAL="3600")
async def api_dies_while_it_deletes(machine: Machine) -> None:
    """The API dies when an image is deleted and its files are not, and the sweeper is asleep."""
    await machine.start_all()
    image_id = await machine.accepted(PHOTO)
    await machine.becomes(image_id, "DONE")
    await machine.stop_all()
    dies = Point.at("before delete", Act.KILL)
    await machine.start("api", dies)
    await machine.delete(image_id)
    await machine.died("api", dies)
    await machine.start_all()
    assert (await machine.delete(image_id)).status_code == 404


@_scenario()
async def worker_dies_when_an_image_is_done(machine: Machine) -> None:
    """The worker dies after the commit that says DONE."""
    await _die(machine, "worker", "after complete.commit")
    await machine.start("worker")


@_scenario(**ASLEEP)
async def worker_dies_with_a_backlog(machine: Machine) -> None:
    """The worker dies as soon as it has acknowledged the last message of a backlog, and nobody looks after the rest."""
    backlog = 6
    await machine.start("api")
    for _ in range(backlog):
        await machine.accepted(PHOTO)
    dies = Point.at(f"after ack {backlog}", Act.KILL)
    await machine.start("worker", dies, Point.at("before render", Act.DELAY, times=ALWAYS, seconds=0.2))
    await machine.died("worker", dies)
    await machine.time_passes(LEASE)
    await machine.start("worker")


@_scenario(MAX_ATTEMPTS="2")
async def image_takes_its_worker_with_it(machine: Machine) -> None:
    """An image kills every worker that renders it."""
    point = Point.at("before render", Act.KILL)
    await machine.start("api")
    await machine.accepted(PHOTO, picture=Picture.POISON)
    for _ in range(2):
        await machine.start("worker", point)
        await machine.died("worker", point)
        await machine.time_passes(LEASE)
    await machine.start("worker")


@_scenario()
async def reconciler_dies_before_it_publishes(machine: Machine) -> None:
    """The reconciler dies when it has taken an image for publishing."""
    await _die(machine, "api", "before publish")
    await machine.time_passes()
    point = Point.at("after reserve_for_publish.commit", Act.KILL)
    await machine.start("worker", point)
    await machine.died("worker", point)
    await machine.time_passes()
    await machine.start_all()


# A process stands still, or is slow.


@_scenario()
async def worker_resumes_after_its_lease(machine: Machine) -> None:
    """A worker stands still between its thumbnails and their rows, until another has the image and they are swept."""
    stops = Point.at("after adopt", Act.STOP)
    holds = Point.at("before render", Act.HOLD)
    await machine.start("api")
    # It takes images ahead: the broker gives it the message for the other one, too, until it is missed.
    first = await machine.start("worker-1", stops, RABBITMQ_URL=f"{machine.broker}?heartbeat=1")
    await machine.accepted(POSTER)
    await first.reached(stops)
    await machine.time_passes(LEASE)
    second = await machine.start("worker-2", holds)
    await second.reached(holds)
    await machine.eventually(lambda world: not any(path.startswith("thumbnails/") for path in world.files))
    first.resume()
    await machine.eventually(lambda world: LOST in first.log.read_text() or "DONE" in _states(world.images))
    second.go_on(holds)


@_scenario(**ASLEEP)
async def worker_is_faster_than_the_note(machine: Machine) -> None:
    """An image is DONE before the API notes that it is queued."""
    holds = Point.at("before mark_queued", Act.HOLD)
    api = await machine.start("api", holds)
    await machine.start("worker")
    upload = asyncio.create_task(machine.upload(PHOTO))
    await api.reached(holds)
    world = await machine.eventually(lambda world: "DONE" in _states(world.images))
    await machine.status(next(iter(world.images)))
    api.go_on(holds)
    await upload


@_scenario(**ASLEEP)
async def commit_is_slow(machine: Machine) -> None:
    """The database takes a second to commit an image, and a worker waits for messages meanwhile."""
    await machine.start("api", Point.at("before add.commit", Act.DELAY, seconds=1))
    await machine.start("worker")
    await machine.accepted(PHOTO)


@_scenario(ORPHAN_GRACE="60")
async def sweeper_comes_before_the_row(machine: Machine) -> None:
    """A file waits for its row for a second, and the sweeper comes by."""
    await machine.start("worker")
    await machine.start("api", Point.at("before add", Act.DELAY, seconds=1.5))
    await machine.accepted(PHOTO)


@_scenario(ORPHAN_GRACE="60")
async def disk_is_slow(machine: Machine) -> None:
    """Every sync takes a second."""
    slow = [Point.at(f"before {sync}", Act.DELAY, times=ALWAYS, seconds=1) for sync in SYNCS]
    await machine.start("worker", *slow)
    await machine.start("api", *slow)
    await asyncio.gather(*(machine.accepted(PHOTO) for _ in range(3)))


# A reply gets lost.


@_scenario()
async def reply_to_recording_is_lost(machine: Machine) -> None:
    """The row is committed, and the API never gets to know; the client tries again."""
    await machine.start("api", Point.at("after add.commit", Act.FAIL, times=ALWAYS))
    answer = await machine.upload(PHOTO, key=KEY)
    assert answer.status_code == 503, answer
    await machine.kill("api")
    await machine.time_passes()
    await machine.start_all()
    await machine.accepted(PHOTO, key=KEY)


@_scenario()
async def reply_to_recording_is_lost_once(machine: Machine) -> None:
    """The row is committed, and the API gets to know when it tries again."""
    await machine.start("worker")
    await machine.start("api", Point.at("after add.commit", Act.FAIL))
    await machine.accepted(PHOTO, key=KEY)


@_scenario()
async def reply_to_the_claim_is_lost(machine: Machine) -> None:
    """The claim is committed, and the worker never gets to know."""
    point = Point.at("after claim.commit", Act.FAIL)
    await machine.start("api")
    worker = await machine.start("worker", point)
    await machine.accepted(PHOTO)
    await worker.reached(point)
    await machine.time_passes(LEASE)


@_scenario()
async def reply_to_the_end_is_lost(machine: Machine) -> None:
    """DONE is committed, and the worker gets to know only that the claim is over."""
    await machine.start("api")
    await machine.start("worker", Point.at("after complete.commit", Act.FAIL))
    await machine.accepted(PHOTO)


@_scenario()
async def reply_to_the_note_is_lost(machine: Machine) -> None:
    """The note that an image is queued is committed, and the API never gets to know."""
    await machine.start("worker")
    await machine.start("api", Point.at("after mark_queued.commit", Act.FAIL))
    await machine.accepted(PHOTO)


@_scenario()
async def confirm_is_lost(machine: Machine) -> None:
    """The broker has the message, and the API never gets to know."""
    await machine.start("api", Point.at("after publish", Act.FAIL))
    await machine.accepted(PHOTO)
    await machine.time_passes()
    await machine.start("worker")


# Something is away for a while, or forgets.


@_scenario(MAX_ATTEMPTS="1")
async def storage_is_away(machine: Machine) -> None:
    """The storage is away for as long as it takes to try an image three times, and one attempt is all it has."""
    holds = Point.at("before local_path", Act.HOLD)
    await machine.start("api")
    worker = await machine.start("worker", holds)
    await machine.accepted(PHOTO)
    await worker.reached(holds)
    aside = machine.storage.with_name("unmounted")
    machine.storage.rename(aside)
    worker.go_on(holds)

    async def tried_thrice() -> bool:
        ended = "ERROR" in _states((await machine.look()).images)
        return ended or worker.log.read_text().count(OUTAGE) >= 3

    await eventually(tried_thrice, timeout=LIMIT)
    aside.rename(machine.storage)


@_scenario(**ASLEEP)
async def queue_is_gone(machine: Machine) -> None:
    """Somebody deletes the queue, and nobody listens at it."""
    await machine.start("api")
    await queues.delete(machine.broker, queues.EXPRESS)
    await machine.accepted(PHOTO)
    await machine.start("worker")


@_scenario()
async def queue_is_gone_under_load(machine: Machine) -> None:
    """Somebody deletes the queue while images come in and are worked on."""
    await machine.start_all()
    load = asyncio.gather(*(machine.accepted(PHOTO) for _ in range(20)))
    await machine.eventually(lambda world: "DONE" in _states(world.images))
    await queues.delete(machine.broker, queues.EXPRESS)
    await load
    await machine.time_passes()


@_scenario(UNCLAIMED_AFTER="7200")
async def broker_forgets(machine: Machine) -> None:
    """The broker loses all messages, and it is not yet time to look after each image."""
    await machine.start("api")
    for _ in range(3):
        await machine.accepted(PHOTO)
    await queues.empty(machine.broker)
    await machine.time_passes(HOUR)
    await machine.start("worker")


@_scenario(DECODE_SLOTS="4", MAX_ATTEMPTS="2")
async def message_comes_five_times(machine: Machine) -> None:
    """The message of an image that is being worked on comes four times more."""
    holds = Point.at("before render", Act.HOLD, times=ALWAYS)
    ignored = Point.at("after ack 3", Act.DELAY)
    await machine.start("api")
    worker = await machine.start("worker", holds, ignored)
    image_id = await machine.accepted(PHOTO)
    await worker.reached(holds)
    await queues.send(machine.broker, queues.EXPRESS, image_id, times=4)
    await worker.reached(ignored)
    worker.go_on(holds)


# The database's clock jumps. To those who only ever compare, it is the same whether it does or all times do.


@_scenario()
async def clock_is_put_forward(machine: Machine) -> None:
    """The database's clock is put forward by an hour, twice: every lease is over, and every image due."""
    holds = Point.at("before render", Act.HOLD, times=ALWAYS)
    await machine.start("api")
    workers = [await machine.start(name, holds) for name in ("worker-1", "worker-2")]
    await machine.accepted(PHOTO)
    for attempts in (1, 2, 3):
        await machine.eventually(lambda world: attempts in [row["attempt"] for row in world.images.values()])  # noqa: B023  (awaited here)
        await machine.time_passes(HOUR)
    for worker in workers:
        worker.go_on(holds)


@_scenario()
async def clock_is_put_back(machine: Machine) -> None:
    """The database's clock is put back by an hour while an image is worked on, another waits, and a third comes."""
    holds = Point.at("before render", Act.HOLD)
    await machine.start("api")
    worker = await machine.start("worker", holds)
    await machine.accepted(PHOTO)
    await worker.reached(holds)
    await machine.accepted(PHOTO)
    await machine.time_passes(-HOUR)
    await machine.accepted(PHOTO)
    worker.go_on(holds)


# Somebody wants an image gone, or made again, while it is worked on.


@_scenario()
async def image_is_deleted_while_it_is_worked_on(machine: Machine) -> None:
    """An image is deleted when its thumbnails are stored and not recorded."""
    holds = Point.at("after adopt", Act.HOLD)
    await machine.start("api")
    worker = await machine.start("worker", holds)
    image_id = await machine.accepted(PHOTO)
    await worker.reached(holds)
    assert (await machine.delete(image_id)).outcome == OK
    worker.go_on(holds)
    await eventually(lambda: LOST in worker.log.read_text(), timeout=LIMIT)


@_scenario()
async def image_is_deleted_while_its_worker_stands_still(machine: Machine) -> None:
    """An image is deleted when its thumbnails are stored and not recorded, and its worker dies before it knows."""
    dies = Point.at("after adopt", Act.STOP)
    await machine.start("api")
    worker = await machine.start("worker-1", dies)
    image_id = await machine.accepted(PHOTO)
    await worker.reached(dies)
    assert (await machine.delete(image_id)).outcome == OK
    await machine.kill("worker-1")
    await machine.time_passes()
    await machine.start("worker-2")


async def _die(machine: Machine, role: str, where: str) -> None:
    """Upload an image, of which the API or the worker dies."""
    point = Point.at(where, Act.KILL)
    if role == "api":
        await machine.start("api", point)
        await machine.upload(PHOTO)
    else:
        await machine.start("api")
        await machine.start("worker", point)
        await machine.accepted(PHOTO)
    await machine.died(role, point)


def _states(images: Mapping[str, Mapping[str, object]]) -> list[object]:
    return [row["status"] for row in images.values()]
