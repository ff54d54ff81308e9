"""The windows in the life of an image: every moment between two effects at which its process can die.

The table that ``docs/reliability.md`` names the tests from: each row is one test of ``test_windows.py``, and of
``test_windows_standalone.py`` if it is not about the broker. Each proves that nothing is lost, nothing is stuck and
nothing is left over, and beside that what its row says.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from harness.images import encoded, noise
from tests.faults.failpoints import Action, Failpoint
from tests.faults.history import OK, Exchange
from tests.faults.host import Host

API, WORKER, STANDALONE = "api", "worker", "standalone"
PHOTO = encoded(noise(160, 120), "JPEG")
"""Large enough for its first bytes to be looked at before the rest is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillPoint:
    """A moment at which a process dies and the power fails."""

    role: str
    """Whose process."""
    where: str
    """Before or after which effect, and which of its occurrences if not the first."""
    kept: bool
    """Whether the image is there afterwards although the client does not ask again."""
    proves: str

    @property
    def name(self) -> str:
        return self.where.replace(" ", "-")

    @property
    def point(self) -> Failpoint:
        return Failpoint.at(self.where, Action.KILL)


def _windows(role: str, *, kept: bool, rows: dict[str, str]) -> tuple[KillPoint, ...]:
    return tuple(KillPoint(role=role, where=where, kept=kept, proves=proves) for where, proves in rows.items())


NOT_ACCEPTED: Final = _windows(
    API,
    kept=False,
    rows={
        "before sniff": "an upload that breaks off leaves nothing but a scratch folder, which is swept",
        "after inspect": "so does one that was received whole",
        "before storage.sync 2": "a folder whose name is not on the disk holds no file that a row names",
        "after storage.sync 2": "an empty folder for originals does no harm",
        "before original.sync-shards": "a shard folder whose name is not on the disk holds no file that a row names",
        "after original.sync-shards": "an empty shard folder does no harm",
        "before original.rename": "what is not at its place yet is swept with its scratch folder",
        "after original.rename": "a file of which neither content nor name is on the disk has no row",
        "before original.sync": "the same",
        "after original.sync": "a file on the disk without a name has no row",
        "before original.sync-shard": "the same",
        "after original.sync-shard": "a file without a row is swept",
        "before add": "so it is",
        "after add": "a row that was not committed never was, and its file is swept",
        "before add.commit": "the same",
    },
)
"""Nothing of the image must be left, once it is certain that nobody comes back for it."""

ACCEPTED: Final = _windows(
    API,
    kept=True,
    rows={
        "after add.commit": "a row is only ever there after its file: it is queued by the reconciler",
        "before publish": "the NEW row is the outbox",
        "before confirm": "the broker has the message and nobody knows: one image, however often it is delivered",
        "after publish": "a queued image that is still NEW is processed all the same",
        "before mark_queued": "the same",
        "after mark_queued": "a change that was not committed never was",
        "before mark_queued.commit": "the same",
        "after mark_queued.commit": "an answer that got lost loses no image, and makes no second one",
    },
)

PROCESSED: Final = _windows(
    WORKER,
    kept=True,
    rows={
        "before claim": "a message that was not acknowledged is delivered again",
        "after claim": "a claim that was not committed holds nothing",
        "before claim.commit": "the same",
        "after claim.commit": "a claim ends with its lease",
        "before local_path": "the same",
        "before render": "the same",
        "after render": "rendered files that were not stored are swept with their scratch folder",
        "before thumbnail.sync-shards": "a shard folder whose name is not on the disk holds no thumbnail with a row",
        "after thumbnail.sync-shards": "an empty shard folder does no harm",
        "before thumbnail.rename": "another attempt has names of its own",
        "after thumbnail.rename": "one of three thumbnails is no set: no row names it, and it is swept",
        "after thumbnail.rename 2": "nor are two",
        "after thumbnail.rename 3": "a set of which nothing is on the disk has no rows",
        "before thumbnail.sync": "the same",
        "after thumbnail.sync 3": "a set whose names are not on the disk has no rows",
        "before thumbnail.sync-shard": "the same",
        "after thumbnail.sync-shard": "a whole set without rows is swept, and made again",
        "before complete": "the same",
        "after complete": "rows that were not committed never were",
        "before complete.commit": "the same",
        "after complete.commit": "what is DONE is complete, and stays as it is when its message comes again",
        "before ack": "the same",
        "after ack": "nothing is left to be done",
    },
)

UPLOAD: Final = NOT_ACCEPTED + ACCEPTED + PROCESSED

NOT_DELETED: Final = _windows(
    API,
    kept=True,
    rows={
        "before remove": "a deletion that was not begun did not happen",
        "after remove": "nor did one that was not committed: rows and files are all there",
        "before remove.commit": "the same",
    },
)
DELETED: Final = _windows(
    API,
    kept=False,
    rows={
        "after remove.commit": "once the rows are gone, the files follow: their removal is written down with it",
        "before delete": "the same",
        "after delete": "files that come back, because their removal was not synced, are still written down",
        "before done": "the same",
        "before done.commit": "the same",
        "after done.commit": "files that come back, and are not written down any more, are swept",
    },
)
DELETION: Final = NOT_DELETED + DELETED
"""Here ``kept`` tells whether the image is still there although the client has asked for its deletion."""

REPROCESSING: Final = (
    *_windows(
        API,
        kept=True,
        rows={
            "before reprocess": "what was not asked for in time does not happen, and the thumbnails are all there",
            "before reprocess.commit": "the same",
            "after reprocess.commit": "the NEW row is the outbox here, too; the old thumbnails are served meanwhile",
            "before mark_queued.commit": "a queued image that is still NEW is processed all the same",
        },
    ),
    *_windows(
        WORKER,
        kept=True,
        rows={
            "after claim.commit": "the old thumbnails stay until the new ones are complete",
            "after adopt": "two sets of files, of which the rows name one: the new one is swept, and made again",
            "before complete.commit": "the same",
            "after complete.commit": "two sets of files, of which the rows name the new one: the old one is removed",
        },
    ),
)

KILL_POINTS: Final = UPLOAD + DELETION + REPROCESSING


def for_distributed(windows: tuple[KillPoint, ...]) -> list[KillPoint]:
    """Those that there are with PostgreSQL, where a statement that is a transaction by itself has no middle."""
    return [window for window in windows if window.where not in {"after mark_queued", "after claim", "after complete"}]


def for_standalone(windows: tuple[KillPoint, ...]) -> list[KillPoint]:
    """Those that there are without a broker."""
    return [window for window in windows if window.point.effect not in {"confirm", "ack"}]


async def die_during_upload(host: Host, window: KillPoint) -> None:
    """Somebody uploads an image; whoever is in the window dies there, and everything is started again."""
    key = str(uuid4())
    await _die(host, window, lambda: host.upload(PHOTO, key=key))
    await host.assert_invariants()
    images = (await host.snapshot()).images
    assert [row["status"] for row in images.values()] == (["DONE"] if window.kept else [])
    # The client that has waited in vain tries again.
    image_id = await host.upload_accepted(PHOTO, key=key)
    assert not images or {image_id} == images.keys()
    await host.wait_for_state(image_id, "DONE")
    await host.assert_invariants()


async def die_during_deletion(host: Host, window: KillPoint) -> None:
    """The same for the deletion of an image that is DONE."""
    image_id = await _done(host)
    await _die(host, window, lambda: host.delete(image_id))
    await host.assert_invariants()
    assert [*(await host.snapshot()).images] == ([image_id] if window.kept else [])
    answer = await host.delete(image_id)
    assert answer.status_code == (204 if window.kept else 404)
    await host.assert_invariants()
    assert (await host.snapshot()).files == set()


async def die_during_reprocessing(host: Host, window: KillPoint) -> None:
    """The same for another rendering of an image that is DONE."""
    image_id = await _done(host)
    await _die(host, window, lambda: host.reprocess(image_id))
    # What was replaced is kept for a minute; then nothing of it must be left.
    await host.wait_for_state(image_id, "DONE")
    await host.advance_time()
    await host.assert_invariants()
    assert (await host.reprocess(image_id)).outcome == OK
    await host.wait_for_state(image_id, "DONE")
    await host.advance_time()
    await host.assert_invariants()


async def _die(host: Host, window: KillPoint, ask: Callable[[], Awaitable[Exchange]]) -> None:
    """Ask for something that leads into the window; afterwards everything runs again, an hour later."""
    if host.distributed:
        await host.start(API, *([window.point] if window.role == API else []))
        answer = await ask()
        if window.role == WORKER:
            assert answer.outcome == OK, answer
            await host.start(WORKER, window.point)
        doomed = window.role
    else:
        await host.start(STANDALONE, window.point)
        await ask()
        doomed = STANDALONE
    await host.wait_for_death(doomed, window.point)
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


async def _done(host: Host) -> str:
    """An image that is DONE, on a machine on which nothing runs any more."""
    await host.start_all()
    image_id = await host.upload_accepted(PHOTO)
    await host.wait_for_state(image_id, "DONE")
    await host.stop_all()
    return image_id
