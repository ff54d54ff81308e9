"""Checks and repairs: the commands check, requeue, backfill and dead-letters."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from image_service.admin.running import Say, run_with_services
from image_service.bootstrap import AdminServices
from image_service.config import Settings
from image_service.domain.image import Image
from image_service.errors import StartError
from image_service.ports import DeadLetter, DeadLetters
from image_service.services.audit import Finding, Remedy
from image_service.services.reprocessing import RequeueResult

_STEP_INTERVAL: Final = 1.0
"""Seconds between two steps of a backfill."""

_REQUEUED: Final[dict[RequeueResult, str]] = {
    RequeueResult.NOT_FOUND: "there is no such image",
    RequeueResult.REPROCESSING: "will be reprocessed",
    RequeueResult.MADE_DUE: "will be queued again within seconds",
    RequeueResult.BUSY: "unchanged: a worker is processing it, or it waits for its next attempt",
    RequeueResult.ORIGINAL_REMOVED: "cannot be reprocessed: its original was removed",
}

_REPAIRED: Final[dict[Remedy, str]] = {
    Remedy.REPROCESS: "the image will be reprocessed",
    Remedy.DELETE: "deleted",
    Remedy.DELETE_NEWER: "deleted",
    Remedy.REQUEUE: "queued",
}

_UNREPAIRED: Final[dict[Remedy, str]] = {
    Remedy.RESTORE_ORIGINAL: "restore the file from a backup, or delete the image",
    Remedy.RESTORE_THUMBNAIL: "cannot be made again: restore the file from a backup, or delete the image",
    Remedy.REPROCESS: "--repair reprocesses the image",
    Remedy.DELETE: "a worker will delete it; --repair deletes it now",
    Remedy.DELETE_NEWER: (
        "newer than every image in the database: if this was restored or copied, stop the workers, which would delete "
        "the file, and follow the runbook, Restore from a backup; otherwise --repair --delete-newer deletes it now"
    ),
    Remedy.REQUEUE: "start a worker and check that it reaches the queue; it will queue the image",
}


def run_check(settings: Settings, *, repair: bool, delete_newer: bool, contents: bool, say: Say) -> int:
    """Compares database, storage and queue; returns the number of findings that were not repaired.

    Raises:
        Outage: the database or the storage is unavailable.
    """

    async def check(services: AdminServices) -> int:
        found: Counter[str] = Counter()
        left = 0
        async for finding in services.audit.run(repair=repair, delete_newer=delete_newer, contents=contents):
            found[finding.kind] += 1
            left += not finding.repaired
            say(f"{finding.kind:10}  {finding.subject}  {_remedy(finding)}")
        repaired = found.total() - left
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())) or "Nothing is wrong"
        say(f"{counts}{f'; {repaired} repaired' if repaired else ''}.")
        return left

    return run_with_services(settings, check)


def run_requeue(settings: Settings, *, images: Sequence[UUID] | None, code: str | None, say: Say) -> None:
    """Queues images for (re)processing: the given ones, or all in ERROR, or those in ERROR with a code.

    Raises:
        DatabaseUnavailable: some images may have been queued already.
    """

    async def requeue(services: AdminServices) -> None:
        if images is None:
            say(f"{await services.reprocessing.requeue_failed(code=code)} images will be reprocessed.")
            return
        for image_id in images:
            say(f"{image_id}  {_REQUEUED[await services.reprocessing.requeue(image_id)]}")

    run_with_services(settings, requeue)


def run_backfill(settings: Settings, *, window: int, say: Say) -> None:
    """Has the workers make outputs that were made with another version of their recipe, and waits, until all are made.

    Raises:
        DatabaseUnavailable: the next run continues.
    """

    async def backfill(services: AdminServices) -> None:
        done = 0
        marked = 0
        unknown = 0
        while True:
            progress = await services.backfill.step(window=window)
            marked += progress.marked
            unknown += progress.unknown
            if (now_done := marked - progress.waiting) > done:
                done = now_done
                say(f"{done} done, {progress.waiting} waiting")
            if not progress.marked and not progress.waiting:
                say(f"Finished: {marked} images were rendered again.")
                if unknown:
                    say(f"{unknown} images have recipes that are not known here; they are as they were.")
                return
            await asyncio.sleep(_STEP_INTERVAL)

    run_with_services(settings, backfill)


def run_list_dead_letters(settings: Settings, *, limit: int, say: Say) -> None:
    """Lists dead letters with the states of their images.

    Raises:
        Outage: the broker or the database is unavailable.
        StartError: there is no broker.
    """

    async def list_dead_letters(services: AdminServices) -> None:
        letters = await _dead_letters(services).list(limit)
        for letter in letters:
            image = None if letter.image_id is None else await services.lookup.find(letter.image_id)
            say(_describe(letter, image))
        say(f"{len(letters)} dead letters{' or more' if len(letters) == limit else ''}.")

    run_with_services(settings, list_dead_letters)


def run_retry_dead_letters(settings: Settings, *, discard: bool, say: Say) -> None:
    """Queues dead letters again, and optionally deletes those that name no image.

    Raises:
        QueueUnavailable: the broker is unavailable; nothing is lost.
        StartError: there is no broker.
    """

    async def retry_dead_letters(services: AdminServices) -> None:
        letters = _dead_letters(services)
        retried = await letters.retry()
        say(f"{retried.handed_over} queued again, {retried.remaining} name no image.")
        if discard:
            say(f"{await letters.discard_unreadable()} of these deleted.")

    run_with_services(settings, retry_dead_letters)


def _remedy(finding: Finding) -> str:
    return (_REPAIRED if finding.repaired else _UNREPAIRED)[finding.remedy]


def _dead_letters(services: AdminServices) -> DeadLetters:
    if services.dead_letters is None:
        raise StartError("The standalone service has no broker, and so no dead letters.")
    return services.dead_letters


def _describe(letter: DeadLetter, image: Image | None) -> str:
    when = "at an unknown time" if letter.died_at is None else f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
    if letter.image_id is None:
        subject = f"names no image: {letter.body!r}"
    else:
        subject = f"{letter.image_id}  {'deleted' if image is None else image.status.value}"
    return f"{when}  {letter.reason or 'unknown reason'}, {letter.times} times, from {letter.queue or '?'}  {subject}"
