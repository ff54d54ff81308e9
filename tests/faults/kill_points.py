"""The kill points in the life of an image: before and after every effect of its process.

``docs/reliability.md`` names the tests from this table: each row is one test of ``test_kill_points.py``, and of
``test_kill_points_standalone.py`` unless it is about the broker; those of late outputs are one test together. Each
proves that nothing is lost, stuck or left over, and in addition what its row says.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from harness.images import encoded, noise
from tests.faults.failpoints import Action, Failpoint
from tests.faults.history import OK, Exchange
from tests.faults.host import Host
from tests.faults.receiver_set import ReceiverNames
from tests.faults.recipes import CHANGED, LATE, write_recipes

API, WORKER, STANDALONE = "api", "worker", "standalone"
PHOTO = encoded(noise(160, 120), "JPEG")
"""Large enough for the sniffing of its first bytes to happen before the rest has arrived."""
MANY_ATTEMPTS: Final = {"MAX_ATTEMPTS": "1000", "MAX_DECODER_FAILURES": "1000"}
"""Settings under which an image may be attempted at many kill points."""
IN_ONE_STATEMENT: Final = frozenset({"after mark_queued", "after claim", "after complete"})
"""Of transactions of a single statement: on PostgreSQL, there is no state before the commit."""
OF_BROKER: Final = frozenset({"confirm", "ack", "exchange.publish", "events.advance.commit"})
"""Effects that need a broker."""
GROUP: Final = 3
"""Uploads that are committed together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillPoint:
    """A moment at which a process is killed and the power fails."""

    role: str
    """The process that is killed: ``api`` or ``worker``."""
    where: str
    """Before or after which effect, and which occurrence if not the first."""
    kept: bool
    """Whether the image exists afterwards without a retry by the client."""
    proves: str

    @property
    def name(self) -> str:
        return self.where.replace(" ", "-")

    @property
    def failpoint(self) -> Failpoint:
        return Failpoint.at(self.where, Action.KILL)


def _kill_points(role: str, *, kept: bool, rows: dict[str, str]) -> tuple[KillPoint, ...]:
    return tuple(KillPoint(role=role, where=where, kept=kept, proves=proves) for where, proves in rows.items())


NOT_ACCEPTED: Final = _kill_points(
    API,
    kept=False,
    rows={
        "before sniff": "an interrupted upload leaves only a scratch folder, which is swept",
        "after inspect": "the same for an upload that was received completely",
        "before storage.sync 2": "no row refers to a file in a folder whose name was not synced",
        "after storage.sync 2": "an empty folder for originals is harmless",
        "before original.sync-shards": "no row refers to a file in a shard folder whose name was not synced",
        "after original.sync-shards": "an empty shard folder is harmless",
        "before original.rename": "a file that was not moved yet is swept with its scratch folder",
        "after original.rename": "a file whose content and name were not synced has no row",
        "before original.sync": "the same",
        "after original.sync": "a file whose name was not synced has no row",
        "before original.sync-shard": "the same",
        "after original.sync-shard": "a file without a row is swept",
        "before add": "the same",
        "after add": "an uncommitted row is rolled back, and its file is swept",
        "before add.commit": "the same",
    },
)
"""Nothing of the image may remain unless the client retries."""

ACCEPTED: Final = _kill_points(
    API,
    kept=True,
    rows={
        "after add.commit": "a row is committed only after its file: the reconciler queues it",
        "before signal": "its event is recorded with it: those who wait for events look for them without a signal, too",
        "after signal": "the same",
        "before publish": "the NEW row is the outbox",
        "before confirm": "the broker has the message, unconfirmed: one image, however often it is delivered",
        "after publish": "a queued image that is still NEW is processed anyway",
        "before mark_queued": "the same",
        "after mark_queued": "an uncommitted change is rolled back",
        "before mark_queued.commit": "the same",
        "after mark_queued.commit": "a lost response loses no image and creates no second one",
    },
)

PROCESSED: Final = _kill_points(
    WORKER,
    kept=True,
    rows={
        "before claim": "a message that was not acknowledged is delivered again",
        "after claim": "an uncommitted claim holds nothing",
        "before claim.commit": "the same",
        "after claim.commit": "a claim ends with its lease",
        "before local_path": "the same",
        "before render": "the same",
        "after render": "rendered files that were not stored are swept with their scratch folder",
        "before thumbnail.sync-shards": "no row refers to a thumbnail in a shard folder whose name was not synced",
        "after thumbnail.sync-shards": "an empty shard folder is harmless",
        "before thumbnail.rename": "every attempt uses its own file names",
        "after thumbnail.rename": "an incomplete set of thumbnails has no rows and is swept",
        "after thumbnail.rename 2": "the same",
        "after thumbnail.rename 3": "a set that was not synced has no rows",
        "before thumbnail.sync": "the same",
        "after thumbnail.sync 3": "a set whose names were not synced has no rows",
        "before thumbnail.sync-shard": "the same",
        "after thumbnail.sync-shard": "a complete set without rows is swept, and rendered again",
        "before complete": "the same",
        "after complete": "uncommitted rows are rolled back",
        "before complete.commit": "the same",
        "after complete.commit": "a DONE image is complete, and redelivery does not change it",
        "before ack": "the same",
        "after ack": "nothing remains to be done",
    },
)

UPLOAD: Final = NOT_ACCEPTED + ACCEPTED + PROCESSED

NOT_DELETED: Final = _kill_points(
    API,
    kept=True,
    rows={
        "before remove": "a deletion that did not start has no effect",
        "after remove": "an uncommitted deletion has no effect: all rows and files remain",
        "before remove.commit": "the same",
    },
)
DELETED: Final = _kill_points(
    API,
    kept=False,
    rows={
        "after remove.commit": "the files follow the rows: their removal is recorded in the same transaction",
        "before delete": "the same",
        "after delete": "files that reappear because their removal was not synced are still recorded for removal",
        "before done": "the same",
        "before done.commit": "the same",
        "after done.commit": "files that reappear and are no longer recorded are swept",
    },
)
DELETION: Final = NOT_DELETED + DELETED
"""Here ``kept`` tells whether the image still exists after the interrupted deletion."""

REPROCESSING: Final = (
    *_kill_points(
        API,
        kept=True,
        rows={
            "before reprocess": "an uncommitted request has no effect, and all thumbnails remain",
            "before reprocess.commit": "the same",
            "after reprocess.commit": "the NEW row is the outbox; the old thumbnails are served meanwhile",
            "before mark_queued.commit": "a queued image that is still NEW is processed anyway",
        },
    ),
    *_kill_points(
        WORKER,
        kept=True,
        rows={
            "after claim.commit": "the old thumbnails stay until the new ones are complete",
            "after adopt": "two sets of files, one with rows: the new one is swept and rendered again",
            "before complete.commit": "the same",
            "after complete.commit": "two sets of files, the new one with rows: the old one is removed",
        },
    ),
)

FOLLOWING: Final = _kill_points(
    WORKER,
    kept=True,
    rows={
        "after complete.commit": "the image is DONE, and its row says which outputs follow and since when",
        "after reserve_outputs.commit": "they are due again, although no message was published",
        "before publish": "the same",
        "after publish": "a second message for them finds nothing to do",
        "before claim_outputs": "their message is delivered again",
        "after claim_outputs.commit": "a claim on them ends with its lease",
        "before render": "the same",
        "after render": "rendered outputs that were not stored are swept with their scratch folder",
        "after thumbnail.rename": "an incomplete set of late outputs has no rows and is swept",
        "after thumbnail.sync-shard": "a complete set without rows is swept, and rendered again",
        "after adopt": "the same",
        "after complete_outputs": "uncommitted rows are rolled back",
        "before complete_outputs.commit": "the same",
        "after complete_outputs.commit": "an image that lacks nothing is not rendered again",
        "before ack": "the same",
    },
)
"""Of a DONE image whose optional outputs follow, one death after the other: the next attempt makes all again."""

REPLACED: Final = _kill_points(
    WORKER,
    kept=True,
    rows={
        "after claim_outputs.commit": "outputs of an earlier recipe stay until the new ones are complete",
        "after adopt": "two files of an output, the earlier one with a row: the new one is swept",
        "before complete_outputs.commit": "the same",
        "after complete_outputs.commit": "two files of an output, the new one with a row: the earlier one is removed",
    },
)
"""The same for outputs that are replaced because their recipe has changed."""

PASSED_ON: Final = _kill_points(
    WORKER,
    kept=True,
    rows={
        "before deliveries.dispatch": "events that were not passed on are passed on by the next worker",
        "after deliveries.dispatch": "uncommitted deliveries are rolled back together with the position in the log",
        "after deliveries.dispatch.commit": "deliveries are recorded together with the position in the log",
        "after deliveries.claim": "an uncommitted claim on deliveries holds nothing",
        "after deliveries.claim.commit": "a claim on deliveries ends with its lease",
        "after post": "the endpoint gets the event again, with the same id",
        "before deliveries.finish.commit": "the same",
        "after deliveries.finish.commit": "a delivery that is made is not made again",
        "before exchange.publish": "events that were not published are published by the next worker",
        "after exchange.publish": "events are published again, in the same order and with the same ids",
        "after events.advance.commit": "the position moves on after the broker has confirmed the events",
    },
)
"""Of events on their way to webhook endpoints and to the exchange, one death after the other."""

PURGED: Final = _kill_points(
    WORKER,
    kept=True,
    rows={
        "before events.purge.commit": "old events are deleted together with the note of how far",
        "after events.purge.commit": "events that endpoints have not got are not deleted, however old",
    },
)
"""Of events that are older than they are kept."""

KILL_POINTS: Final = UPLOAD + DELETION + REPROCESSING + FOLLOWING + REPLACED + PASSED_ON + PURGED


def for_distributed(kill_points: tuple[KillPoint, ...]) -> list[KillPoint]:
    """Return those that exist on PostgreSQL."""
    return [each for each in kill_points if each.where not in IN_ONE_STATEMENT]


def for_standalone(kill_points: tuple[KillPoint, ...]) -> list[KillPoint]:
    """Return those that exist without a broker."""
    return [each for each in kill_points if each.failpoint.effect not in OF_BROKER]


async def die_during_upload(host: Host, kill_point: KillPoint) -> None:
    """Upload an image, let the process die at the kill point, cut the power, restart everything, check, and retry."""
    key = str(uuid4())
    await _die(host, kill_point, lambda: host.upload(PHOTO, key=key))
    await host.assert_invariants()
    images = (await host.snapshot()).images
    assert [row["status"] for row in images.values()] == (["DONE"] if kill_point.kept else [])
    # The client, which got no response, retries.
    image_id = await host.upload_accepted(PHOTO, key=key)
    assert not images or {image_id} == images.keys()
    await host.wait_for_state(image_id, "DONE")
    await host.assert_invariants()


async def die_with_a_group(host: Host, where: str) -> int:
    """Let the process die around the COMMIT of a group of uploads, cut the power and check; returns how many remain."""
    point = Failpoint.at(where, Action.KILL)
    await upload_group(host, point)
    await host.wait_for_death(STANDALONE, point)
    await host.lose_power()
    await host.advance_time()
    await host.start_all()
    await host.assert_invariants()
    return len((await host.snapshot()).images)


async def upload_group(host: Host, *points: Failpoint) -> None:
    """Upload to a standalone process while the COMMIT of a first upload hangs: the COMMIT of the others is one."""
    hangs = Failpoint.at("before add.commit", Action.HOLD)
    others = Failpoint.at(f"before add {GROUP + 1}", Action.DELAY)
    process = await host.start(STANDALONE, hangs, others, *points)
    async with asyncio.TaskGroup() as uploads:
        uploads.create_task(host.upload(PHOTO))
        await process.wait_until_reached(hangs)
        for _ in range(GROUP):
            uploads.create_task(host.upload(PHOTO))
        await process.wait_until_reached(others)
        process.release(hangs)


async def die_during_deletion(host: Host, kill_point: KillPoint) -> None:
    """Do the same for the deletion of a DONE image."""
    image_id = await _done(host)
    await _die(host, kill_point, lambda: host.delete(image_id))
    await host.assert_invariants()
    assert [*(await host.snapshot()).images] == ([image_id] if kill_point.kept else [])
    answer = await host.delete(image_id)
    assert answer.status_code == (204 if kill_point.kept else 404)
    await host.assert_invariants()
    assert (await host.snapshot()).files == set()


async def die_during_reprocessing(host: Host, kill_point: KillPoint) -> None:
    """Do the same for the reprocessing of a DONE image."""
    image_id = await _done(host)
    await _die(host, kill_point, lambda: host.reprocess(image_id))
    # Replaced thumbnails are kept for a minute; then they must be removed.
    await host.wait_for_state(image_id, "DONE")
    await host.advance_time()
    await host.assert_invariants()
    assert (await host.reprocess(image_id)).outcome == OK
    await host.wait_for_state(image_id, "DONE")
    await host.advance_time()
    await host.assert_invariants()


async def die_while_outputs_follow(host: Host) -> None:
    """Let the worker die at each kill point, and the power fail, while it makes the late outputs of one image."""
    if host.distributed:
        await host.start(API)
        await host.upload_accepted(PHOTO, recipe=LATE)
    else:
        await host.start(STANDALONE, *(point.failpoint for point in FOLLOWING[:1]))
        await host.upload_accepted(PHOTO, recipe=LATE)
    await _die_at_each(host, FOLLOWING)


async def die_while_outputs_are_replaced(host: Host) -> None:
    """Do the same for an image whose recipe has changed: only the output that it changes is replaced."""
    await host.start_all()
    image_id = await host.upload_accepted(PHOTO, recipe=LATE)
    await host.assert_invariants()
    before = await _keys(host, image_id)
    await host.stop_all()
    write_recipes(host.folder, CHANGED)
    await host.begin_backfill()
    await _die_at_each(host, REPLACED)
    after = await _keys(host, image_id)
    assert {name for name, key in after.items() if before[name] != key} == {"wide"}


async def die_while_events_are_passed_on(host: Host) -> None:
    """Let the worker die at each kill point, and the power fail, while events are on their way; some endpoints fail."""
    await _die_with_receivers(host, PASSED_ON, ReceiverNames())


async def die_while_events_are_purged(host: Host) -> None:
    """Do the same while events are deleted that are older than they are kept: clients are not to ask for them."""
    await _die_with_receivers(host, PURGED, ReceiverNames(streams=(), pages=()))


async def _die_with_receivers(host: Host, kill_points: tuple[KillPoint, ...], receivers: ReceiverNames) -> None:
    role = WORKER if host.distributed else STANDALONE
    await host.start(API if host.distributed else STANDALONE)
    await host.start_receivers(receivers)
    if not host.distributed:
        await host.kill(STANDALONE)
    for point in for_distributed(kill_points) if host.distributed else for_standalone(kill_points):
        others = [host.start(API)] if host.distributed and API not in host.processes else []
        await asyncio.gather(host.start(role, point.failpoint), *others)
        await host.upload(PHOTO)
        await host.wait_for_death(role, point.failpoint)
        await host.lose_power()
        await host.advance_time()
        await host.assert_nothing_is_broken()
    await host.start_all()
    await host.assert_invariants()


async def _die_at_each(host: Host, kill_points: tuple[KillPoint, ...]) -> None:
    """Let the worker die at one kill point after the other; what is recorded must be there after each death."""
    role = WORKER if host.distributed else STANDALONE
    for point in for_distributed(kill_points) if host.distributed else for_standalone(kill_points):
        if role not in host.processes:
            others = [host.start(API)] if host.distributed and API not in host.processes else []
            await asyncio.gather(host.start(role, point.failpoint), *others)
        await host.wait_for_death(role, point.failpoint)
        await host.lose_power()
        await host.advance_time()
        await host.assert_nothing_is_broken()
    await host.start_all()
    await host.assert_invariants()


async def _keys(host: Host, image_id: str) -> dict[str, str]:
    return {row["preset"]: row["key"] for row in (await host.snapshot()).thumbnails[image_id]}


async def _die(host: Host, kill_point: KillPoint, ask: Callable[[], Awaitable[Exchange]]) -> None:
    """Send a request that reaches the kill point, then restart everything one hour later."""
    if host.distributed:
        await host.start(API, *([kill_point.failpoint] if kill_point.role == API else []))
        answer = await ask()
        if kill_point.role == WORKER:
            assert answer.outcome == OK, answer
            await host.start(WORKER, kill_point.failpoint)
        doomed = kill_point.role
    else:
        await host.start(STANDALONE, kill_point.failpoint)
        await ask()
        doomed = STANDALONE
    await host.wait_for_death(doomed, kill_point.failpoint)
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


async def _done(host: Host) -> str:
    """Return a DONE image on a host whose processes have stopped."""
    await host.start_all()
    image_id = await host.upload_accepted(PHOTO)
    await host.wait_for_state(image_id, "DONE")
    await host.stop_all()
    return image_id
