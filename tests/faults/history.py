"""What was asked of the service and what it answered, and what was done to it meanwhile: one JSON line each, in order.

Nobody can be more certain of an outcome than the client that waited for it, so there are three of them.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
CLEAN = frozenset({503, 507})
"""The answers with a 5xx that say in good order that something is away or full."""


class Picture(StrEnum):
    """What an uploaded file has to become."""

    VALID = "valid"
    """DONE."""
    CORRUPT = "corrupt"
    """Refused, or ERROR: it ends in the middle of its pixels."""
    POISON = "poison"
    """ERROR: decoding it takes more than a decoder may."""


class Operation(StrEnum):
    """What was asked."""

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
    """The Idempotency-Key, where one was sent."""

    @classmethod
    def of(cls, content: bytes, picture: Picture = Picture.VALID, key: str | None = None) -> "Sent":
        return cls(sha256=hashlib.sha256(content).hexdigest(), size=len(content), picture=picture, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a read told: of an image's status, or of a file's bytes."""

    state: str | None = None
    finished_at: str | None = None
    code: str | None = None
    """Why the image is in ERROR."""
    preset: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer, or the lack of one. Times are seconds since the epoch."""

    operation: Operation
    server: str
    """The process that was asked."""
    began: float
    ended: float
    waited: float
    """Seconds from the last byte sent to the answer, measured on a clock that never jumps."""
    status_code: int | None = None
    code: str | None = None
    """The code of a problem document."""
    problem: bool = False
    """Whether the answer is a problem document."""
    image_id: str | None = None
    sent: Sent | None = None
    seen: Seen | None = None
    error: str | None = None
    """What the client met instead of an answer."""
    request_id: str | None = None
    """By which the service's logs name it."""

    @property
    def outcome(self) -> str:
        """``ok``; ``failed``: refused in good order; or ``unknown``: it may have happened or not."""
        if self.status_code is None or (self.status_code >= 500 and self.status_code not in CLEAN):
            return UNKNOWN
        return OK if self.status_code < 400 else FAILED

    @property
    def in_doubt(self) -> bool:
        """Whether what was asked for may have happened although nobody was told: a commit's reply can get lost."""
        return self.outcome == UNKNOWN or (self.outcome == FAILED and self.status_code == 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something done to the service. Times are seconds since the epoch."""

    kind: str
    subject: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A message put into a queue on purpose that nobody can understand."""

    body: str


class History:
    """The file, and all that is in it."""

    def __init__(self, path: Path) -> None:
        """Opens the file, and goes on with what it holds already."""
        self.exchanges: list[Exchange] = []
        self.faults: list[Fault] = []
        self.garbage: list[Garbage] = []
        if path.exists():
            for line in path.read_text().splitlines():
                self._remember(_parsed(json.loads(line)))
        self._file = path.open("a", buffering=1)

    def append(self, entry: Exchange | Fault | Garbage) -> None:
        """Write one more line."""
        self._remember(entry)
        self._file.write(json.dumps({"entry": type(entry).__name__, **asdict(entry)}, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Nothing more follows."""
        self._file.close()

    def of(self, *operations: Operation) -> Iterator[Exchange]:
        """The exchanges of these kinds."""
        return (exchange for exchange in self.exchanges if exchange.operation in operations)

    def by_image(self) -> Mapping[str, Sequence[Exchange]]:
        """The exchanges that name an image, in the order in which they were answered."""
        found: dict[str, list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            if exchange.image_id is not None:
                found[exchange.image_id].append(exchange)
        return found

    def _remember(self, entry: Exchange | Fault | Garbage) -> None:
        match entry:
            case Exchange():
                self.exchanges.append(entry)
            case Fault():
                self.faults.append(entry)
            case Garbage():
                self.garbage.append(entry)


def _parsed(line: dict[str, Any]) -> Exchange | Fault | Garbage:
    kind = line.pop("entry")
    if kind == "Fault":
        return Fault(**line)
    if kind == "Garbage":
        return Garbage(**line)
    sent, seen = line.pop("sent"), line.pop("seen")
    return Exchange(
        **{**line, "operation": Operation(line["operation"])},
        sent=Sent(**{**sent, "picture": Picture(sent["picture"])}) if sent else None,
        seen=Seen(**seen) if seen else None,
    )
