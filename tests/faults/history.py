"""Records requests, responses and faults as JSON lines, in order.

A request has one of three outcomes, as its client sees it: ok, failed or unknown.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
CLEAN = frozenset({503, 507})
"""5xx responses that report an unavailable dependency or a full disk; they are expected during faults."""


class Picture(StrEnum):
    """What an uploaded file must become."""

    VALID = "valid"
    """DONE."""
    CORRUPT = "corrupt"
    """Rejected, or ERROR: truncated in its pixel data."""
    POISON = "poison"
    """ERROR: decoding it exceeds the decoder's limits."""


class Operation(StrEnum):
    """The kind of a request."""

    UPLOAD = "upload"
    STATUS = "status"
    ORIGINAL = "original"
    THUMBNAIL = "thumbnail"
    DELETE = "delete"
    REPROCESS = "reprocess"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An uploaded file."""

    sha256: str
    size: int
    picture: Picture
    key: str | None = None
    """The Idempotency-Key, if one was sent."""
    recipe: str | None = None
    """The recipe that was chosen, if one was."""
    webhook_id: str | None = None
    """The webhook endpoint that is to get its events, if one was named."""
    metadata: str | None = None

    @classmethod
    def of(
        cls, content: bytes, picture: Picture = Picture.VALID, key: str | None = None, recipe: str | None = None
    ) -> "Sent":
        digest = hashlib.sha256(content).hexdigest()
        return cls(sha256=digest, size=len(content), picture=picture, key=key, recipe=recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a read returned: an image's status, or a file's digest."""

    state: str | None = None
    finished_at: str | None = None
    code: str | None = None
    """Why the image is in ERROR."""
    preset: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request with its response or error. Times are seconds since the epoch."""

    operation: Operation
    server: str
    """The API process."""
    began: float
    ended: float
    waited: float
    """Seconds from the last byte sent to the response, by a monotonic clock."""
    slowness: float = 1.0
    """Of the machine at the time of a late response (see ``harness.pace``)."""
    status_code: int | None = None
    code: str | None = None
    """The code of a problem document."""
    problem: bool = False
    """Whether the response is a problem document."""
    retry_after: bool = False
    """Whether the response says when to try again."""
    image_id: str | None = None
    sent: Sent | None = None
    wait: float = 0.0
    """Seconds for which the client asked the service to wait for the end (``Prefer: wait``)."""
    recipe: str | None = None
    """The recipe that a request for reprocessing chose."""
    seen: Seen | None = None
    error: str | None = None
    """The client's error if there was no response."""
    request_id: str | None = None
    """The request id in the service's logs."""

    @property
    def outcome(self) -> str:
        """``ok``; ``failed``: rejected with a clean error; ``unknown``: it may or may not have taken effect."""
        if self.status_code is None or (self.status_code >= 500 and self.status_code not in CLEAN):
            return UNKNOWN
        return OK if self.status_code < 400 else FAILED

    @property
    def in_doubt(self) -> bool:
        """Whether the request may have taken effect without a success response: a commit's reply can be lost."""
        return self.outcome == UNKNOWN or (self.outcome == FAILED and self.status_code == 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An injected fault. Times are seconds since the epoch."""

    kind: str
    subject: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A malformed message that was injected into a queue."""

    body: str


class Way(StrEnum):
    """How a receiver gets events."""

    STREAM = "stream"
    """Server-Sent Events."""
    PAGES = "pages"
    """JSON with a cursor."""
    WEBHOOK = "webhook"
    EXCHANGE = "exchange"
    """The broker's topic exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A client that must get all events from now on."""

    name: str
    way: Way
    types: Sequence[str] | None = None
    """The types that it wants; None: all."""
    webhook_id: str | None = None
    after: str | None = None
    """The id of the last event before those that it is to get; None: it gets all that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One event that reached a receiver. Times are seconds since the epoch."""

    receiver: str
    event_id: str
    type: str
    image_id: str | None
    at: float
    document: str
    """The SHA-256 of what tells of the event."""
    accepted: bool = True
    """Whether the receiver confirmed it."""
    wrong: str | None = None
    """What is wrong with it, such as its signature."""


Entry: TypeAlias = Exchange | Fault | Garbage | Receiver | Received


class History:
    """The history file and its entries."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its existing entries."""
        self.exchanges: list[Exchange] = []
        self.faults: list[Fault] = []
        self.garbage: list[Garbage] = []
        self.receivers: list[Receiver] = []
        self.received: dict[str, list[Received]] = defaultdict(list)
        """By receiver, in the order of their arrival."""
        if path.exists():
            for line in path.read_text().splitlines():
                self._remember(_parsed(json.loads(line)))
        self._file = path.open("a", buffering=1)

    def append(self, entry: Entry) -> None:
        """Append one entry."""
        self._remember(entry)
        self._file.write(json.dumps({"entry": type(entry).__name__, **asdict(entry)}, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def of(self, *operations: Operation) -> Iterator[Exchange]:
        """Return the exchanges of these kinds."""
        return (exchange for exchange in self.exchanges if exchange.operation in operations)

    def by_image(self) -> Mapping[str, Sequence[Exchange]]:
        """Return the exchanges by image id, in the order of their responses."""
        found: dict[str, list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            if exchange.image_id is not None:
                found[exchange.image_id].append(exchange)
        return found

    def _remember(self, entry: Entry) -> None:
        match entry:
            case Exchange():
                self.exchanges.append(entry)
            case Fault():
                self.faults.append(entry)
            case Garbage():
                self.garbage.append(entry)
            case Receiver():
                self.receivers.append(entry)
            case Received():
                self.received[entry.receiver].append(entry)


def _parsed(line: dict[str, Any]) -> Entry:
    kind = line.pop("entry")
    if kind == "Fault":
        return Fault(**line)
    if kind == "Garbage":
        return Garbage(**line)
    if kind == "Receiver":
        return Receiver(**{**line, "way": Way(line["way"])})
    if kind == "Received":
        return Received(**line)
    sent, seen = line.pop("sent"), line.pop("seen")
    return Exchange(
        **{**line, "operation": Operation(line["operation"])},
        sent=Sent(**{**sent, "picture": Picture(sent["picture"])}) if sent else None,
        seen=Seen(**seen) if seen else None,
    )
