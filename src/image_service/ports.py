"""What the use cases need from the outside world, and what each adapter owes them.

An obligation written here is tested on every adapter by one suite in ``tests/contract``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from image_service.domain.image import Claim, ImageFormat, ImageHeader, Original, Rendering
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A file in the storage."""

    key: str
    age_seconds: float
    """Seconds since it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """What a storage says about a file to whoever gets it from there directly, by a link."""

    content_type: str
    attachment: bool = False
    """Whether browsers are to save it rather than show it."""


class Storage(Protocol):
    """Keeps files under keys such as ``originals/7f/0190…``.

    Every method raises ``StorageUnavailable`` when the storage cannot be reached and ``StorageFull`` when it has no
    room; both leave nothing half-written under a key.
    """

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """An empty local folder, whose content is removed on leaving, whatever happened."""
        ...

    async def adopt(self, files: Mapping[str, Path], presented: Mapping[str, Presentation] | None = None) -> None:
        """Move files out of a scratch folder to their keys, durably.

        When this returns, every file survives a power loss. When it raises, a key holds either the whole file or
        nothing. The given paths may be gone afterwards.

        Args:
            files: The files, by key.
            presented: How some of them present themselves, by key; for storages that can make links.
        """
        ...

    async def local_path(self, key: str, scratch: Path) -> Path:
        """A local file with the object's bytes: the stored file itself, or a copy made in ``scratch``. Read only.

        Raises:
            ObjectMissing: there is nothing under the key.
        """
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from ``start`` on, at most ``length`` of them, in pieces of bounded size.

        Raises:
            ObjectMissing: there is nothing under the key; raised before the first piece.
        """
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key with nothing under it is fine."""
        ...

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in no particular order."""
        ...

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove scratch folders that a crash left behind more than ``older_than`` seconds ago; returns how many."""
        ...

    async def claim(self, owner: str) -> str:
        """Note whose files these are, unless it is noted already; returns whose they are."""
        ...

    async def probe(self) -> None:
        """Return if the storage can be written to."""
        ...


class Links(Protocol):
    """What some storages can do beside: let clients get a file from the storage itself."""

    async def link(self, key: str, *, method: str, seconds: int) -> str:
        """A URL that gives whoever has it this one object.

        Args:
            key: The object. Nobody looks whether there is one.
            method: ``GET`` or ``HEAD``: the only thing that can be done with the URL.
            seconds: For how long that works.

        Raises:
            StorageUnavailable: no link can be made.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One queue message: it names an image, and nothing else in it matters."""

    image_id: UUID
    lane: Lane = Lane.NORMAL
    """Where it waits."""
    request_id: str | None = None
    """Ties the worker's log lines to the upload's; absent where the reconciler published."""
    trace: str | None = None
    """Ties the worker's spans to the upload's: a ``traceparent`` (W3C Trace Context), where anything is traced."""


Handler = Callable[[Delivery], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Drain:
    """How a consumer is asked to stop."""

    requested: Callable[[], Awaitable[object]]
    """Returns once the consumer should take nothing more."""
    grace: float
    """Seconds that running handlers then have to finish before they are cancelled."""


class TaskQueue(Protocol):
    """Makes work fast; the database stays the truth, so a duplicate or a lost message is a nuisance, never a loss."""

    async def start(self) -> None:
        """Begin connecting. Returns without waiting for the broker: it may be away."""
        ...

    async def close(self) -> None:
        """Disconnect. Safe to call twice."""
        ...

    async def publish(self, delivery: Delivery) -> None:
        """Hand a message over.

        When this returns, a broker has the message durably and can route it. It never waits longer than the
        adapter's time limit.

        Raises:
            QueueUnavailable: not known to be handed over; it may still be delivered.
        """
        ...

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Feed a lane's deliveries to ``handler``, at most ``slots`` at once, until the drain; reconnects by itself.

        A handler that returns acknowledges; one that raises gives the message back for a later try. On the drain,
        deliveries not yet started go back to the queue at once, running handlers get their grace, and nothing is
        left unacknowledged. Cancelling gives back everything at once.
        """
        ...

    async def depth(self) -> Mapping[Lane, int]:
        """How many messages wait in each lane that no consumer holds.

        Raises:
            QueueUnavailable: the broker did not answer.
        """
        ...

    async def probe(self) -> None:
        """Return if the queue answers now.

        Raises:
            QueueUnavailable: it does not.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that the queue has given up on. No image is lost with it, for the database is the truth."""

    image_id: UUID | None
    """None where the body names no image: no version of the service can do anything with it."""
    body: bytes
    """The body, or the beginning of a long one."""
    queue: str | None
    """The broker's name for the lane it came from; None if it got here in another way."""
    reason: str | None
    """Why, in the broker's words: ``rejected`` for one that names no image, ``delivery_limit`` after too many tries."""
    died_at: datetime | None
    """When, by the broker's clock."""
    times: int
    """How often: once, and once more for each time that it was retried in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What became of the dead letters."""

    handed_over: int
    remaining: int
    """Those that name no image."""


class DeadLetters(Protocol):
    """What an operator can do about the messages that the queue has given up on.

    Every method raises ``QueueUnavailable`` when the broker does not answer in time. Nothing is lost then.
    """

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest ``limit`` of them, oldest first. They stay where they are."""
        ...

    async def retry(self) -> Retried:
        """Put each one that names an image back into the lane it came from, and only then take it away from here.

        One that is interrupted halfway may be delivered twice.
        """
        ...

    async def discard_unreadable(self) -> int:
        """Throw away those that name no image; returns how many."""
        ...


class Inspector(Protocol):
    """Judges an upload by its content, without decoding a pixel."""

    def sniff(self, head: bytes) -> ImageFormat:
        """The format that the first bytes belong to; 4096 bytes, or all there are, decide it.

        Raises:
            UnsupportedFormat: none that is allowed.
        """
        ...

    def inspect(self, path: Path) -> ImageHeader:
        """Format and dimensions from the file's header, in bounded time and memory.

        Raises:
            UnsupportedFormat: the content is no allowed format.
            CorruptImage: the header is damaged.
            ImageTooLarge: more pixels than allowed.
        """
        ...


class Renderer(Protocol):
    """Makes thumbnails of a file that may be hostile."""

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Make every preset of the recipe, as files in the folder ``out``. Cancelling stops the work at once.

        Raises:
            InvalidImage: the decoder's verdict on the file; another try would end the same.
            DecoderFailure: the decoder died; another try may end differently.
            ObjectMissing: the source is gone, though its storage is not.
        """
        ...


class Ending(StrEnum):
    """What became of an attempt."""

    DONE = "done"
    ERROR = "error"
    """The image ended in ERROR."""
    RETRY = "retry"
    """Another attempt follows."""
    GIVEN_BACK = "given-back"
    """Ended by an outage or a drain, at no cost to the image."""
    LOST = "lost"
    """The image was given to another worker, or deleted."""


class Observer(Protocol):
    """Is told what happens, for whoever counts it. No method raises, blocks, or has a say in anything."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """An upload is safe; ``queued`` unless the queue is away."""
        ...

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """A worker asked for an image; None where there was nothing to do."""
        ...

    def attempted(self, claim: Claim, ending: Ending, code: str | None = None) -> None:
        """An attempt ended; with an error's code if one ended it."""
        ...

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """Parts of the service were asked how they are; ``waiting`` is what the queue told."""
        ...

    def surveyed(self, unfinished: int, oldest: float | None) -> None:
        """So many images are unfinished. The oldest was accepted so many seconds ago; None if none waits."""
        ...

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """A round of a periodic job is over."""
        ...


class Unobserved:
    """The ``Observer`` that lets everything pass."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """Nothing is counted."""

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """Nothing is counted."""

    def attempted(self, claim: Claim, ending: Ending, code: str | None = None) -> None:
        """Nothing is counted."""

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """Nothing is counted."""

    def surveyed(self, unfinished: int, oldest: float | None) -> None:
        """Nothing is counted."""

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """Nothing is counted."""


UNOBSERVED: Final[Observer] = Unobserved()
